//! One responder after the other: keys and certificates installed ahead, used from a chosen time, retired.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use goodstanding::app::App;
use goodstanding::app::settings::ResponderSettings;
use goodstanding::clock::{Clock, ManualClock, SystemClock, UnixTime};
use goodstanding::ocsp::issue::{CaKey, certify};
use goodstanding::ocsp::{Certificate, HashAlgorithm, Issuer, Received, Serial, request};
use goodstanding::signer::KeyReference;

use crate::conformance::asker::{Asker, certificate};
use crate::support::alone::{Alone, alone};
use crate::support::ca::{KeyKind, utf8};
use crate::support::server::Server;
use crate::support::site::{ISSUER, Site};
use crate::support::{eventually, http};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// An installation whose answers last 16 hours, with so many keys and without a certificate for any.
fn site(keys: usize) -> Site {
    let site = Site::bare(KeyKind::P256);
    site.configure(
        &site
            .default_configuration()
            .replace("validity = \"7d\"", "validity = \"16h\"")
            .replace("refresh = \"3d12h\"", "refresh = \"7h\""),
    );
    site.goodstanding(&["issuer", "add", "--name", ISSUER, "--certificate", utf8(&site.ca.certificate())])
        .ok();
    for number in 1..=keys {
        let key = key(number);
        site.goodstanding(&["responder", "key", "--issuer", ISSUER, "--key", &key]).ok();
        let out = site.path(&format!("{number}.csr"));
        site.goodstanding(&["responder", "csr", "--issuer", ISSUER, "--key", &key, "--out", utf8(&out)]).ok();
    }
    site
}

fn key(number: usize) -> String {
    format!("ocsp-test-{number}")
}

/// The authority's certificate for a key, from and to a time.
fn certify_for(site: &Site, number: usize, from: UnixTime, to: UnixTime, out: &Path) {
    let der = |path: &Path| pem::parse(std::fs::read(path).unwrap()).unwrap().into_contents();
    let issuer = Issuer::new(certificate(&site.ca.certificate()));
    let ca = CaKey::from_der(&der(&site.ca.key()), &issuer).unwrap();
    let request = der(&site.path(&format!("{number}.csr")));
    let made = certify(&issuer, &ca, &request, from, to.since(from)).unwrap();
    std::fs::write(out, pem::encode(&pem::Pem::new("CERTIFICATE", made))).unwrap();
}

/// The installed responder that signed an answer, by its certificate, which must be in force when it
/// signs and no answer may outlive.
fn signer_of(asker: &Asker, answer: &Received) -> Certificate {
    let signer = answer.signer(&asker.issuer).unwrap();
    assert!(
        signer.is_valid_at(answer.produced_at),
        "signed at {} by {}",
        answer.produced_at,
        signer.not_after()
    );
    for single in &answer.responses {
        assert!(single.next_update.unwrap() <= signer.not_after());
    }
    signer
}

/// Asks about a certificate. The answer must be there, verify, and be good at `now`.
fn ask(asker: &Asker, serial: Serial, now: UnixTime) -> Received {
    let asked = request::encode(&[asker.cert_id(HashAlgorithm::Sha1, serial)], None).unwrap();
    let answer = asker.read(&asker.post(&asked).body);
    for single in &answer.responses {
        assert!(now <= single.next_update.unwrap(), "{now} is past {}", single.next_update.unwrap());
    }
    signer_of(asker, &answer);
    answer
}

/// Goes on asking until it is stopped. At every moment there is an answer in force.
struct Asking {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<usize>,
}

impl Asking {
    fn begin(alone: &Arc<Alone>, serials: &[Serial]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, alone, serials) = (Arc::clone(&stop), Arc::clone(alone), serials.to_vec());
        let thread = std::thread::spawn(move || {
            let asker = Asker::of(alone.issuer.clone(), alone.ocsp());
            let asks = serials.iter().cycle().take_while(|_| !stopped.load(Ordering::Relaxed));
            asks.map(|serial| {
                let answer = ask(&asker, *serial, alone.clock.now());
                assert!(answer.produced_at <= alone.clock.now());
                std::thread::sleep(Duration::from_millis(5));
            })
            .count()
        });
        Self { stop, thread }
    }

    /// How often it asked.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Waits until every certificate has its first answer.
fn until_answered(asker: &Asker, serials: &[Serial]) {
    for serial in serials {
        let id = asker.cert_id(HashAlgorithm::Sha1, *serial);
        let asked = request::encode(&[id], None).unwrap();
        eventually("a first answer", Duration::from_secs(30), || {
            let reply = http::post(asker.port(), &asked).ok()?;
            Received::decode(&reply.body).ok().map(|_| ())
        });
    }
}

/// Waits until no answer is older than the refresh interval.
fn until_fresh(asker: &Asker, serials: &[Serial], clock: &ManualClock) -> Vec<Received> {
    let now = clock.now();
    eventually("fresh answers", Duration::from_secs(30), || {
        let answers: Vec<_> = serials.iter().map(|serial| ask(asker, *serial, now)).collect();
        let fresh = answers.iter().all(|answer| now.since(answer.produced_at) <= 7 * HOUR);
        fresh.then_some(answers)
    })
    .0
}

/// B5, B3: three certificates one after the other, over eleven days in steps of two hours. The second is
/// installed ahead by a command, the third stands in the configuration; each takes over when it was told to.
#[test]
fn responders_follow_each_other_and_no_answer_is_ever_missing_expired_or_wrongly_signed() {
    let begin = SystemClock.now();
    alone(
        "rotation::responders_follow_each_other_and_no_answer_is_ever_missing_expired_or_wrongly_signed",
        || {
            let site = site(3);
            let at = |days: u32| begin.plus(days * DAY);
            certify_for(&site, 1, begin, at(6), &site.responder_certificate());
            certify_for(&site, 2, at(3), at(9), &site.path("2.pem"));
            certify_for(&site, 3, at(7), at(13), &site.path("3.pem"));
            let third = format!(
                "  [[issuer.responder]]\n  token = \"hsm-a\"\n  key = \"{}\"\n  certificate = \"{}\"\n  from = \"{}\"\n",
                key(3),
                site.path("3.pem").display(),
                at(8)
            );
            let text = std::fs::read_to_string(site.path("goodstanding.toml")).unwrap();
            site.configure(&format!("{text}{third}"));
            // The body's process begins at another second.
            std::fs::write(site.path("begin"), begin.0.to_string()).unwrap();
            site
        },
        async |alone| {
            let serials = alone.register(24).await;
            let runtime = tokio::runtime::Handle::current();
            let drive = move |alone: &Arc<Alone>| follow_each_other(alone, &serials, &runtime);
            alone.serve(drive).await;
        },
    );
}

fn follow_each_other(alone: &Arc<Alone>, serials: &[Serial], runtime: &tokio::runtime::Handle) {
    let begin = std::fs::read_to_string(alone.folder.join("begin")).unwrap().parse().unwrap();
    let begin = UnixTime(begin);
    let asker = Asker::of(alone.issuer.clone(), alone.ocsp());
    let certificates = ["responder.pem", "2.pem", "3.pem"].map(|file| certificate(&alone.folder.join(file)));
    until_answered(&asker, serials);
    let asking = Asking::begin(alone, serials);
    let mut turns = [0_usize; 3];
    for step in 0..132_u32 {
        if step == 12 {
            let second = ResponderSettings {
                token: "hsm-a".to_owned(),
                key: KeyReference::Label(key(2)),
                certificate: alone.folder.join("2.pem"),
                algorithm: None,
                from: Some(begin.plus(4 * DAY)),
            };
            runtime.block_on(install_as_another(alone, &second));
        }
        for answer in until_fresh(&asker, serials, &alone.clock) {
            let turn = match answer.produced_at {
                at if at < begin.plus(4 * DAY) => 0,
                at if at < begin.plus(8 * DAY) => 1,
                _ => 2,
            };
            let by = signer_of(&asker, &answer);
            assert_eq!(by.der(), certificates[turn].der(), "signed at {}", answer.produced_at);
            turns[turn] += 1;
        }
        alone.clock.advance(2 * HOUR);
    }
    let asked = asking.end();
    assert!(turns.iter().all(|count| *count > 24 * 30) && asked > 500, "{turns:?}, {asked} asked besides");
    let ready = String::from_utf8(http::get(alone.control(), "/readyz").unwrap().body).unwrap();
    let until = certificates[2].not_after();
    assert!(ready.contains(&format!("somebody does until {until}")), "{ready}");
}

/// Installs a responder through another handle on the store, as another process does, and waits until
/// the server knows.
async fn install_as_another(alone: &Alone, responder: &ResponderSettings) {
    let other = App::open(alone.settings.clone(), alone.clock.clone()).await.unwrap();
    let before = in_use(alone);
    let issuer = other.issuer(ISSUER).await.unwrap();
    other.install(&issuer, responder).await.unwrap();
    other.close().await;
    eventually("the news of a responder", Duration::from_secs(20), || {
        (in_use(alone) == before + 1).then_some(())
    });
}

/// Responders that the server has in use, now or later, by its metrics.
fn in_use(alone: &Alone) -> usize {
    let text = String::from_utf8(http::get(alone.control(), "/metrics").unwrap().body).unwrap();
    text.matches("goodstanding_responder_certificate_expires_timestamp_seconds{").count()
}

/// The clock stands still: what the retired one signed is signed anew by the other because it was retired.
#[test]
fn a_retired_responder_signs_nothing_more_and_its_answers_are_signed_anew() {
    alone(
        "rotation::a_retired_responder_signs_nothing_more_and_its_answers_are_signed_anew",
        || {
            let (site, now) = (site(2), SystemClock.now());
            certify_for(&site, 1, now, now.plus(30 * DAY), &site.responder_certificate());
            certify_for(&site, 2, now, now.plus(20 * DAY), &site.path("2.pem"));
            site
        },
        async |alone| {
            let serials = alone.register(20).await;
            let runtime = tokio::runtime::Handle::current();
            let drive = move |alone: &Arc<Alone>| {
                let asker = Asker::of(alone.issuer.clone(), alone.ocsp());
                let [first, second] =
                    ["responder.pem", "2.pem"].map(|file| certificate(&alone.folder.join(file)));
                until_answered(&asker, &serials);
                let by = |signer: &Certificate| {
                    let signers = serials.iter().map(|serial| {
                        let answer = ask(&asker, *serial, alone.clock.now());
                        signer_of(&asker, &answer)
                    });
                    signers.filter(|found| found.der() == signer.der()).count()
                };
                let spare = ResponderSettings {
                    token: "hsm-a".to_owned(),
                    key: KeyReference::Label(key(2)),
                    certificate: alone.folder.join("2.pem"),
                    algorithm: None,
                    from: None,
                };
                runtime.block_on(install_as_another(alone, &spare));
                assert_eq!((by(&first), by(&second)), (20, 0), "a spare one changes nothing");
                let retire = |at| {
                    runtime.block_on(async {
                        let other = App::open(alone.settings.clone(), alone.clock.clone()).await.unwrap();
                        let number = other.responders().await.unwrap().into_iter().find_map(|responder| {
                            (responder.certificate.der() == first.der()).then_some(responder.record.number)
                        });
                        other.store.retire_responder(number.unwrap(), at).await.unwrap();
                        other.close().await;
                    });
                };
                let asking = Asking::begin(alone, &serials);
                retire(Some(alone.clock.now()));
                eventually("new signatures", Duration::from_secs(20), || (by(&second) == 20).then_some(()));
                assert_eq!(in_use(alone), 1);
                // Back in use it is the preferred one again, from the next refresh on.
                retire(None);
                eventually("the news", Duration::from_secs(20), || (in_use(alone) == 2).then_some(()));
                alone.clock.advance(7 * HOUR);
                eventually("the refresh", Duration::from_secs(20), || (by(&first) == 20).then_some(()));
                assert!(asking.end() > 0);
            };
            alone.serve(drive).await;
        },
    );
}

/// The commands, and what the operator is told where.
#[test]
fn the_operator_sees_who_signs_next_and_is_told_before_nobody_does() {
    let site = site(2);
    let now = SystemClock.now();
    // It ends in twelve hours, after ten days.
    certify_for(&site, 1, now.minus(10 * DAY), now.plus(12 * HOUR), &site.responder_certificate());
    certify_for(&site, 2, now.plus(2 * HOUR), now.plus(20 * DAY), &site.path("2.pem"));
    let install = |certificate: &Path, more: &[&str]| {
        let install = ["responder", "install", "--issuer", ISSUER, "--certificate", utf8(certificate)];
        site.json(&[&install[..], more].concat())
    };
    let first = install(&site.responder_certificate(), &[]);
    assert_eq!((&first["state"], &first["signs"]), (&"signs".into(), &true.into()), "{first}");
    site.goodstanding(&["responder", "retire", "1"]).exits(1).says(&["no other responder", "--force"]);
    site.goodstanding(&["responder", "list"]).ok().says(&["no responder signs for test after", "install"]);
    {
        let server = Server::start(&site);
        eventually("the alarm", Duration::from_secs(20), || {
            server.log().contains("responder certificates run out").then_some(())
        });
        let ready = String::from_utf8(http::get(site.control, "/readyz").unwrap().body).unwrap();
        let ends = now.plus(12 * HOUR).0 - 1;
        assert!(ready.contains(&format!("somebody does until {}", UnixTime(ends))), "{ready}");
        let metrics = String::from_utf8(http::get(site.control, "/metrics").unwrap().body).unwrap();
        let line = |name: &str, labels: &str| format!("goodstanding_{name}{{{labels}}} {ends}\n");
        for line in [
            line("responder_certificate_expires_timestamp_seconds", "issuer=\"test\",responder=\"1\""),
            line("issuer_signed_until_timestamp_seconds", "issuer=\"test\""),
        ] {
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }
    let from = now.plus(3 * HOUR).to_string();
    let second = install(&site.path("2.pem"), &["--key", &key(2), "--from", &from]);
    assert_eq!(
        (&second["state"], second["from"].as_str()),
        (&"waits".into(), Some(from.as_str())),
        "{second}"
    );
    let list = site.json(&["responder", "list"]);
    let states: Vec<_> = list.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["waits", "signs"], "the one that takes over is preferred from then on");
    // Nine hours together, and answers last sixteen.
    site.goodstanding(&["responder", "list"])
        .ok()
        .says(&["responder 2 takes over", "let it take over earlier"]);
    site.goodstanding(&["responder", "retire", "1", "--force"]).ok().says(&["nobody signs for test"]);
    let list = site.json(&["responder", "list"]);
    assert_eq!((&list[0]["state"], &list[1]["state"]), (&"waits".into(), &"retired".into()), "{list}");
    assert!(list[1]["retired_at"].is_string());
    let back = install(&site.responder_certificate(), &[]);
    assert_eq!(back["state"], "signs", "{back}");
}
