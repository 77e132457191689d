use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::ocsp::response::{self, SingleExtras};
use crate::ocsp::{CertId, CrlReason, ResponderId, ResponseData, SingleResponse, ecdsa};

const ISSUER: IssuerId = IssuerId(1);

fn frame(algorithm: SignatureAlgorithm) -> Arc<Frame> {
    Arc::new(Frame { algorithm, certificate: Some(vec![0x30, 3, 2, 1, 5]) })
}

/// A certificate, and its revocation.
type Member = (Serial, Option<Revocation>);

/// An answer that was signed, as the store keeps it.
#[derive(Clone, Debug)]
struct Made {
    frame: Arc<Frame>,
    response_data: Vec<u8>,
    signature: Vec<u8>,
    this_update: UnixTime,
    next_update: UnixTime,
}

impl Made {
    fn new(frame: &Arc<Frame>, serial: Serial, revocation: Option<Revocation>, this_update: i64) -> Self {
        Self::about(frame, &[(serial, revocation)], this_update)
    }

    /// One answer for all of these.
    fn about(frame: &Arc<Frame>, members: &[Member], this_update: i64) -> Self {
        let (this_update, next_update) = (UnixTime(this_update), UnixTime(this_update + 604_799));
        let single = |serial, revocation: Option<Revocation>, hash: HashAlgorithm| SingleResponse {
            cert_id: CertId {
                hash,
                issuer_name_hash: vec![1; hash.length()].into(),
                issuer_key_hash: vec![2; hash.length()].into(),
                serial,
            },
            status: revocation.map_or(CertStatus::Good, CertStatus::Revoked),
            this_update,
            next_update,
            extras: SingleExtras::default(),
        };
        let both = |(serial, revocation): &Member| {
            [HashAlgorithm::Sha1, HashAlgorithm::Sha256].map(|hash| single(*serial, *revocation, hash))
        };
        let data = ResponseData {
            responder_id: ResponderId::ByKey([9; 20]),
            produced_at: this_update,
            responses: members.iter().flat_map(both).collect(),
            nonce: None,
            extended_revoke: false,
        };
        let signature = match frame.algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => ecdsa::der(&[this_update.0 as u8 | 1; 64]).to_vec(),
            _ => vec![this_update.0 as u8; 256],
        };
        let response_data = data.encode().unwrap();
        Self { frame: Arc::clone(frame), response_data, signature, this_update, next_update }
    }

    fn answer(&self) -> SignedAnswer<'_> {
        SignedAnswer {
            frame: Arc::clone(&self.frame),
            response_data: &self.response_data,
            signature: &self.signature,
            this_update: self.this_update,
            next_update: self.next_update,
            renewed_at: self.this_update.plus(std::time::Duration::from_secs(302_400)),
            pack: None,
        }
    }

    fn body(&self) -> Vec<u8> {
        let Frame { algorithm, certificate } = &*self.frame;
        response::assemble(&self.response_data, *algorithm, &self.signature, certificate.as_deref())
    }
}

fn entry<'a>(version: i64, made: Option<&'a Made>) -> Entry<'a> {
    let answer = made.map(Made::answer);
    Entry { version, not_before: None, not_after: UnixTime(2_000_000_000), revocation: None, answer }
}

fn number(number: u64) -> Serial {
    Serial::from_unsigned(&[&[0x5a; 9][..], &number.to_be_bytes()].concat()).unwrap()
}

#[test]
fn an_older_version_or_answer_never_comes_back() {
    let shelf = Shelf::new();
    let serial = number(1);
    let frame = frame(SignatureAlgorithm::EcdsaP256Sha256);
    let made = |at| Made::new(&frame, serial, None, at);
    let put = |version, at: Option<i64>| shelf.put(ISSUER, serial, &entry(version, at.map(made).as_ref()));
    assert!(put(1, None));
    assert!(put(1, Some(10)));
    assert!(!put(1, None), "an answer is not taken away");
    assert!(!put(1, Some(9)), "an older answer does not replace a newer one");
    assert!(put(2, None), "a revocation takes the old answer away at once");
    assert_eq!(shelf.answers(), 0);
    assert!(!put(1, Some(99)), "an answer for the old version comes too late");
    assert!(put(2, Some(20)));
    assert_eq!((shelf.certificates(), shelf.answers()), (1, 1));
    assert!(shelf.get(IssuerId(2), &serial).is_none(), "another issuer's certificate");
}

#[test]
fn an_answer_from_the_future_gives_way() {
    let shelf = Shelf::new();
    let serial = number(1);
    let frame = frame(SignatureAlgorithm::EcdsaP256Sha256);
    let put = |version, at, now| {
        let made = Made::new(&frame, serial, None, at);
        shelf.put_at(ISSUER, serial, &entry(version, Some(&made)), UnixTime(now))
    };
    assert!(put(2, 900, 900));
    assert!(!put(2, 20, 900));
    assert!(put(2, 20, 21), "the clock was set back");
    assert!(!put(1, 30, 31), "never an older version");
}

#[test]
fn expired_certificates_are_swept_off_and_their_memory_is_used_again() {
    let shelf = Shelf::new();
    let frame = frame(SignatureAlgorithm::EcdsaP256Sha256);
    let put_from = |start: u64, not_after: fn(u64) -> i64| {
        for at in start..start + 1_000 {
            let made = Made::new(&frame, number(at), None, 1);
            let entry = Entry { not_after: UnixTime(not_after(at)), ..entry(1, Some(&made)) };
            assert!(shelf.put(ISSUER, number(at), &entry));
        }
    };
    put_from(0, |at| at as i64);
    let memory = shelf.memory();
    assert_eq!(shelf.sweep(UnixTime(400)), 0, "their answers last longer");
    assert_eq!((shelf.certificates(), shelf.answers()), (600, 600));
    assert!(shelf.get(ISSUER, &number(400)).is_some());
    assert!(shelf.get(ISSUER, &number(399)).is_none());
    assert_eq!(shelf.sweep(UnixTime(1_000)), 0);
    for round in 1..6 {
        put_from(round * 1_000, |_| 2_000);
        assert_eq!(shelf.certificates(), 1_000);
        shelf.sweep(UnixTime(2_001));
    }
    assert!(shelf.memory() <= memory * 11 / 10, "{} of {memory}", shelf.memory());
    put_from(0, |_| 700_000);
    assert_eq!(shelf.sweep(UnixTime(604_801)), 1_000, "answers past nextUpdate are counted");
}

fn revocations() -> impl Strategy<Value = Option<Revocation>> {
    let reason = proptest::option::of(select(&CrlReason::ALL[..]));
    proptest::option::of((0i64..2_000_000_000, reason))
        .prop_map(|parts| parts.map(|(time, reason)| Revocation { time: UnixTime(time), reason }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_served_is_what_was_signed(
        serial in proptest::collection::vec(any::<u8>(), 1..=20),
        revocation in revocations(),
        hashes in proptest::sample::subsequence(HashAlgorithm::ALL.to_vec(), 1..=4),
        by_name in any::<bool>(),
        nonce in proptest::option::of(proptest::collection::vec(any::<u8>(), 32)),
        extended_revoke in any::<bool>(),
        algorithm in select(&SignatureAlgorithm::ALL[..]),
        plain in proptest::collection::vec(any::<u8>(), 64),
        is_der in any::<bool>(),
        [this_update, valid, behind] in [0i64..4_000_000_000, 0i64..10_000_000, 0i64..2],
    ) {
        let serial = Serial::from_der_content(&serial).unwrap();
        let (this_update, next_update) = (UnixTime(this_update), UnixTime(this_update + valid));
        let single = |hash: HashAlgorithm| SingleResponse {
            cert_id: CertId {
                hash,
                issuer_name_hash: vec![1; hash.length()].into(),
                issuer_key_hash: vec![2; hash.length()].into(),
                serial,
            },
            status: revocation.map_or(CertStatus::Good, CertStatus::Revoked),
            this_update,
            next_update,
            extras: SingleExtras::default(),
        };
        let data = ResponseData {
            responder_id: if by_name {
                ResponderId::ByName(b"\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02ca".to_vec())
            } else {
                ResponderId::ByKey([9; 20])
            },
            produced_at: UnixTime(this_update.0 + behind),
            responses: hashes.iter().copied().map(single).collect(),
            nonce: nonce.map(Into::into),
            extended_revoke,
        };
        let made = Made {
            frame: frame(algorithm),
            response_data: data.encode().unwrap(),
            signature: if is_der { ecdsa::der(&plain).to_vec() } else { plain },
            this_update,
            next_update,
        };
        let shelf = Shelf::new();
        let entry = Entry { revocation, not_before: Some(UnixTime(5)), ..entry(3, Some(&made)) };
        prop_assert!(shelf.put(ISSUER, serial, &entry));
        let slot = shelf.get(ISSUER, &serial).unwrap();
        prop_assert_eq!((slot.version, slot.not_before, slot.not_after), (3, entry.not_before, entry.not_after));
        prop_assert_eq!(slot.revocation, revocation);
        let answer = slot.answer.unwrap();
        prop_assert_eq!(answer.response_data(), made.response_data.clone());
        prop_assert_eq!(answer.body(), made.body());
        prop_assert_eq!((answer.this_update, answer.next_update), (this_update, next_update));
        for hash in HashAlgorithm::ALL {
            prop_assert_eq!(answer.has_hash(hash), hashes.contains(&hash));
        }
    }
}

#[test]
fn answers_of_which_each_has_its_own_shape_are_kept_whole_and_under_few_templates() {
    let shelf = Shelf::new();
    let frame = frame(SignatureAlgorithm::EcdsaP256Sha256);
    let made = |at: u64| {
        let this_update = UnixTime(1_000 + at as i64);
        let extras = SingleExtras { archive_cutoff: Some(UnixTime(at as i64)), ..SingleExtras::default() };
        let single = SingleResponse {
            cert_id: CertId {
                hash: HashAlgorithm::Sha1,
                issuer_name_hash: vec![1; 20].into(),
                issuer_key_hash: vec![2; 20].into(),
                serial: number(at),
            },
            status: CertStatus::Good,
            this_update,
            next_update: this_update,
            extras,
        };
        let data = ResponseData {
            responder_id: ResponderId::ByKey([9; 20]),
            produced_at: this_update,
            responses: vec![single],
            nonce: None,
            extended_revoke: false,
        };
        Made { response_data: data.encode().unwrap(), ..Made::new(&frame, number(at), None, this_update.0) }
    };
    for at in 0..100 {
        assert!(shelf.put(ISSUER, number(at), &entry(1, Some(&made(at)))));
    }
    for at in 0..100 {
        let answer = shelf.get(ISSUER, &number(at)).unwrap().answer.unwrap();
        assert_eq!(answer.body(), made(at).body());
    }
    assert!(shelf.templates.len() <= 10, "{} templates", shelf.templates.len());
}

#[test]
fn readers_see_whole_answers_while_they_change_and_the_shelf_grows() {
    const CERTIFICATES: u64 = 400;
    let shelf = Shelf::new();
    let (rsa, p256) = (frame(SignatureAlgorithm::RsaPkcs1Sha256), frame(SignatureAlgorithm::EcdsaP256Sha256));
    let rounds = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    // Lengths change too, so that records move and their places are used again.
    let made = |at: u64, round: i64| {
        let frame = if (at as i64 + round) % 3 == 0 { &rsa } else { &p256 };
        Made::new(frame, number(at), None, 1_000 + round)
    };
    let put = |at, round| shelf.put(ISSUER, number(at), &entry(1, Some(&made(at, round))));
    (0..CERTIFICATES).for_each(|at| assert!(put(at, 0)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=12 {
                (0..CERTIFICATES).for_each(|at| assert!(put(at, round)));
                let fresh = 10_000 * round as u64;
                (fresh..fresh + 200).for_each(|at| assert!(put(at, round)));
                rounds.store(round as usize, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
        for reader in 0..2 {
            let (shelf, made, done, rounds) = (&shelf, &made, &done, &rounds);
            scope.spawn(move || {
                let mut read = 0u64;
                while !done.load(Ordering::SeqCst) || read < CERTIFICATES {
                    let at = (read * 7 + reader) % CERTIFICATES;
                    let least = rounds.load(Ordering::SeqCst) as i64;
                    let answer = shelf.get(ISSUER, &number(at)).and_then(|slot| slot.answer).unwrap();
                    let round = answer.this_update.0 - 1_000;
                    assert!(round >= least, "an answer of round {round} after {least}");
                    assert_eq!(answer.body(), made(at, round).body());
                    read += 1;
                }
            });
        }
    });
    assert_eq!(shelf.certificates(), 400 + 12 * 200);
}

fn put_packed(shelf: &Shelf, member: Member, number: i64, made: &Made) -> bool {
    let answer = SignedAnswer { pack: Some(number), ..made.answer() };
    let entry = Entry { revocation: member.1, answer: Some(answer), ..entry(1, None) };
    shelf.put(ISSUER, member.0, &entry)
}

#[test]
fn a_pack_is_served_for_each_of_its_certificates_as_it_was_signed() {
    let reasons = [None, Some(CrlReason::Unspecified), Some(CrlReason::KeyCompromise)];
    for algorithm in [SignatureAlgorithm::EcdsaP256Sha256, SignatureAlgorithm::RsaPkcs1Sha256] {
        let shelf = Shelf::new();
        let frame = frame(algorithm);
        for (round, reason) in reasons.into_iter().enumerate() {
            for is_revoked in [false, true] {
                let pack = (2 * round + usize::from(is_revoked)) as u64;
                let revocation = is_revoked.then_some(Revocation { time: UnixTime(77), reason });
                let members: Vec<_> = (0..5).map(|at| (number(100 * pack + at), revocation)).collect();
                let made = Made::about(&frame, &members, 1_000);
                for member in &members {
                    assert!(put_packed(&shelf, *member, pack as i64 + 1, &made));
                }
                for (serial, _) in &members {
                    let slot = shelf.get(ISSUER, serial).unwrap();
                    assert_eq!(slot.revocation, revocation);
                    let answer = slot.answer.unwrap();
                    assert_eq!(answer.response_data(), made.response_data);
                    assert_eq!(answer.body(), made.body());
                    assert!(
                        answer.has_hash(HashAlgorithm::Sha256) && !answer.has_hash(HashAlgorithm::Sha384)
                    );
                }
            }
        }
        assert!(shelf.templates.len() <= 2, "{} templates", shelf.templates.len());
        assert!(shelf.packs.lock().is_empty(), "every certificate of each pack has come");
    }
}

#[test]
fn a_pack_goes_with_the_last_certificate_that_it_answers_for() {
    let shelf = Shelf::new();
    let frame = frame(SignatureAlgorithm::RsaPkcs1Sha256);
    let members: Vec<_> = (0..4).map(|at| (number(at), None)).collect();
    let mut memory = 0;
    for round in 0..50 {
        let made = Made::about(&frame, &members, 1_000 + round);
        for member in &members {
            assert!(put_packed(&shelf, *member, 256 * round, &made));
            // The same once more changes nothing, and keeps nothing twice.
            assert!(put_packed(&shelf, *member, 256 * round, &made));
        }
        if round == 5 {
            memory = shelf.memory();
        }
    }
    assert_eq!(shelf.memory(), memory, "what packs leave is used again");
    // One is revoked: the others still have theirs.
    assert!(shelf.put(ISSUER, number(1), &entry(2, None)));
    assert!(shelf.get(ISSUER, &number(1)).unwrap().answer.is_none());
    let last = Made::about(&frame, &members, 1_049);
    assert_eq!(shelf.get(ISSUER, &number(2)).unwrap().answer.unwrap().body(), last.body());
    assert_eq!(shelf.answers(), 3);
    assert!(!put_packed(&shelf, members[0], 256 * 59, &Made::about(&frame, &members, 1_000)), "an older one");
    shelf.sweep(UnixTime(2_000_000_001));
    assert_eq!((shelf.certificates(), shelf.answers()), (0, 0));
    assert!(shelf.packs.lock().is_empty());
    let made = Made::about(&frame, &members, 2_000);
    members.iter().for_each(|member| assert!(put_packed(&shelf, *member, 256 * 60, &made)));
    assert_eq!(shelf.memory(), memory);
}

#[test]
fn an_answer_that_does_not_speak_of_the_certificate_is_not_taken_for_its_pack() {
    let shelf = Shelf::new();
    let frame = frame(SignatureAlgorithm::EcdsaP256Sha256);
    let members: Vec<_> = (0..3).map(|at| (number(at), None)).collect();
    let made = Made::about(&frame, &members, 1_000);
    assert!(put_packed(&shelf, members[0], 1, &made));
    // Kept whole, as any answer that no template writes.
    assert!(put_packed(&shelf, (number(9), None), 1, &made));
    assert_eq!(shelf.get(ISSUER, &number(9)).unwrap().answer.unwrap().body(), made.body());
    let revoked = (members[1].0, Some(Revocation { time: UnixTime(5), reason: None }));
    assert!(put_packed(&shelf, revoked, 1, &made));
    assert_eq!(shelf.get(ISSUER, &members[1].0).unwrap().answer.unwrap().body(), made.body());
}

#[test]
fn readers_see_whole_packs_while_certificates_come_and_go() {
    const MEMBERS: u64 = 64;
    let shelf = Shelf::new();
    let frame = frame(SignatureAlgorithm::EcdsaP256Sha256);
    let done = AtomicBool::new(false);
    // Packs of two to nine, put together otherwise in each round.
    let round_of = |round: i64| -> Vec<(i64, Vec<Member>, Made)> {
        let size = 2 + (round % 8) as usize;
        let members: Vec<_> =
            (0..MEMBERS).map(|at| (number((at * 7 + round as u64) % MEMBERS), None)).collect();
        let packs = members.chunks(size).enumerate();
        packs
            .map(|(at, part)| {
                (round * 1_000 + at as i64, part.to_vec(), Made::about(&frame, part, 1_000 + round))
            })
            .collect()
    };
    let put_round = |round| {
        for (number, members, made) in round_of(round) {
            members.iter().for_each(|member| assert!(put_packed(&shelf, *member, number, &made)));
        }
    };
    put_round(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..40).for_each(put_round);
            done.store(true, Ordering::SeqCst);
        });
        for reader in 0..2 {
            let (shelf, done) = (&shelf, &done);
            scope.spawn(move || {
                let mut read = 0u64;
                while !done.load(Ordering::SeqCst) || read < 2 * MEMBERS {
                    let serial = number((read * 5 + reader) % MEMBERS);
                    let answer = shelf.get(ISSUER, &serial).unwrap().answer.unwrap();
                    let data = answer.response_data();
                    let told = template::subjects(&data).unwrap();
                    // A pack of one that was left over is an answer like any other.
                    assert!(told.iter().any(|subject| subject.serial == serial.as_der_content()));
                    let time = answer.this_update.to_datetime().format("%Y%m%d%H%M%SZ").to_string();
                    assert!(data.windows(15).any(|window| window == time.as_bytes()));
                    read += 1;
                }
            });
        }
    });
}

#[test]
fn a_certificate_in_a_pack_of_eight_takes_less_than_one_alone() {
    let shelf = Shelf::new();
    let frame = frame(SignatureAlgorithm::RsaPkcs1Sha256);
    let certificates = 40_000;
    for pack in 0..certificates / 8 {
        let members: Vec<_> = (0..8).map(|at| (number(8 * pack + at), None)).collect();
        let made = Made::about(&frame, &members, 1_795_315_054);
        members.iter().for_each(|member| assert!(put_packed(&shelf, *member, pack as i64 + 1, &made)));
    }
    let each = (shelf.memory() - Shelf::new().memory()) / certificates as usize;
    assert!(each <= 110, "{each} octets");
}

#[test]
fn a_certificate_takes_as_much_memory_as_what_differs() {
    for (algorithm, goal) in
        [(SignatureAlgorithm::EcdsaP256Sha256, 140), (SignatureAlgorithm::RsaPkcs1Sha256, 330)]
    {
        let shelf = Shelf::new();
        let frame = frame(algorithm);
        let certificates = 40_000;
        for at in 0..certificates {
            assert!(shelf.put(
                ISSUER,
                number(at),
                &entry(1, Some(&Made::new(&frame, number(at), None, 1_795_315_054)))
            ));
        }
        // The list of chunks is as long for a small fleet as for a large one.
        let fixed = Shelf::new().memory();
        let each = (shelf.memory() - fixed) / certificates as usize;
        assert!(each <= goal, "{algorithm}: {each} octets");
    }
}
