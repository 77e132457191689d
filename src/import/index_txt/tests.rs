use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::import::tests::{run, store_with};

/// 2040-01-01: later than any revocation in these files.
const NOW: UnixTime = UnixTime(2_208_988_800);

const LINE: &str = "V\t261231235959Z\t\t01\tunknown\t/CN=a";

fn line(status: &str, not_after: &str, revoked: &str, serial: &str) -> Result<CertificateEntry, LineError> {
    parse_line(format!("{status}\t{not_after}\t{revoked}\t{serial}\tunknown\t/CN=a").as_bytes())
}

fn revoked_as(field: &str) -> Result<Revocation, LineError> {
    line("R", "261231235959Z", field, "01").map(|entry| entry.revocation.unwrap())
}

fn time(text: &str) -> UnixTime {
    UnixTime::parse_rfc3339(text).unwrap()
}

#[test]
fn the_three_statuses_are_read() {
    let good = parse_line(LINE.as_bytes()).unwrap();
    assert_eq!(good.serial.to_string(), "01");
    assert_eq!(good.not_after, time("2026-12-31T23:59:59Z"));
    assert_eq!((good.not_before, good.revocation), (None, None));
    assert_eq!(line("E", "161231235959Z", "", "0A").unwrap().revocation, None);
    let revoked = line("R", "261231235959Z", "260102030405Z", "0A").unwrap();
    assert_eq!(revoked.revocation, Some(Revocation { time: time("2026-01-02T03:04:05Z"), reason: None }));
}

#[test]
fn every_form_of_a_revocation_that_openssl_writes_is_read() {
    let at = time("2026-01-02T03:04:05Z");
    for (field, reason) in [
        ("260102030405Z", None),
        ("20260102030405Z,unspecified", None),
        ("260102030405Z,keyCompromise", Some(CrlReason::KeyCompromise)),
        ("260102030405Z,CACompromise", Some(CrlReason::CaCompromise)),
        ("260102030405Z,superseded", Some(CrlReason::Superseded)),
        ("260102030405Z,SUPERSEDED", Some(CrlReason::Superseded)),
        ("260102030405Z,cessationOfOperation", Some(CrlReason::CessationOfOperation)),
        ("260102030405Z,affiliationChanged", Some(CrlReason::AffiliationChanged)),
        ("260102030405Z,privilegeWithdrawn", Some(CrlReason::PrivilegeWithdrawn)),
        ("260102030405Z,AACompromise", Some(CrlReason::AaCompromise)),
        ("260102030405Z,certificateHold", Some(CrlReason::CertificateHold)),
        ("260102030405Z,holdInstruction,1.2.840.10040.2.2", Some(CrlReason::CertificateHold)),
        ("260102030405Z,holdInstruction,holdInstructionReject", Some(CrlReason::CertificateHold)),
        ("260102030405Z,keyTime,20260101000000Z", Some(CrlReason::KeyCompromise)),
        ("260102030405Z,CAkeyTime,20260101000000Z", Some(CrlReason::CaCompromise)),
    ] {
        assert_eq!(revoked_as(field), Ok(Revocation { time: at, reason }), "{field}");
    }
    assert_eq!(revoked_as("260102030405Z,removeFromCRL"), Err(LineError::Removal));
    assert!(matches!(revoked_as("260102030405Z,stolen"), Err(LineError::Reason(_))));
    assert!(matches!(revoked_as("260102030405Z,1"), Err(LineError::Reason(_))));
    assert!(matches!(revoked_as("260102030405Z,+1"), Err(LineError::Reason(_))));
    assert!(matches!(revoked_as("260102030405Z,"), Err(LineError::Reason(_))));
    assert!(matches!(revoked_as("yesterday"), Err(LineError::Date { .. })));
}

#[test]
fn a_line_that_is_no_entry_says_why() {
    for (text, why) in [
        ("V\t261231235959Z\t\t01", "4 tab-separated fields instead of 6"),
        ("X\t261231235959Z\t\t01\tunknown\t/CN=a", "the status \"X\" is none of V, R and E"),
        ("V\t261331235959Z\t\t01\tunknown\t/CN=a", "notAfter \"261331235959Z\" is no date"),
        ("V\t260229000000Z\t\t01\tunknown\t/CN=a", "notAfter \"260229000000Z\" is no date"),
        ("V\t2612312359Z\t\t01\tunknown\t/CN=a", "is no date"),
        ("V\t\t\t01\tunknown\t/CN=a", "is no date"),
        ("R\t261231235959Z\t\t01\tunknown\t/CN=a", "no revocation date"),
        ("V\t261231235959Z\t260102030405Z\t01\tunknown\t/CN=a", "the status is not R"),
        ("V\t261231235959Z\t\t\tunknown\t/CN=a", "serial \"\": the serial number is empty"),
        ("V\t261231235959Z\t\t0x\u{e4}\tunknown\t/CN=a", "not hexadecimal"),
    ] {
        let error = parse_line(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_misunderstood_is_read_leniently() {
    assert_eq!(line("V", "261231235959Z", "", "abc").unwrap().serial.to_string(), "0abc");
    let subject = parse_line(b"V\t261231235959Z\t\t01\tunknown\t/CN=a\\\tb\xff\xfe/O=\\x41").unwrap();
    assert_eq!(subject.serial.to_string(), "01");
    assert!(line("V", "20991231235959Z", "", "-01").is_ok());
}

fn portions(text: &[u8]) -> (Vec<String>, Vec<String>, u64) {
    let (mut serials, mut problems, mut octets) = (Vec::new(), Vec::new(), 0);
    read_portions(text, NOW, &mut |portion| {
        assert_eq!(portion.rows, portion.entries.len() as u64 + portion.problems.count);
        serials.extend(portion.entries.iter().map(|entry| entry.serial.to_string()));
        problems.extend(portion.problems.first.iter().map(|problem| problem.place.clone()));
        octets += portion.octets;
        true
    })
    .unwrap();
    (serials, problems, octets)
}

#[test]
fn line_ends_comments_and_blank_lines_are_passed_over() {
    let text = format!("# a comment\r\n{LINE}\r\n\r\n   \n\t\n{LINE}\nbad\n{LINE}");
    let (serials, problems, octets) = portions(text.as_bytes());
    assert_eq!(serials, ["01"; 3]);
    assert_eq!(problems, ["line 7"]);
    assert_eq!(octets, text.len() as u64);
    assert_eq!(portions(b""), (Vec::new(), Vec::new(), 0));
}

#[test]
fn a_line_without_end_costs_no_memory_and_hides_no_other_line() {
    let mut text = vec![b'x'; LINE_MAX as usize * 3];
    write!(onto(&mut text), "\n{LINE}\n").unwrap();
    let (serials, problems, octets) = portions(&text);
    assert_eq!((serials, problems), (vec!["01".to_owned()], vec!["line 1".to_owned()]));
    assert_eq!(octets, text.len() as u64);
}

/// `fmt::Write` onto octets.
fn onto(octets: &mut Vec<u8>) -> impl std::fmt::Write + '_ {
    struct Onto<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Onto<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend(text.as_bytes());
            Ok(())
        }
    }
    Onto(octets)
}

proptest! {
    #[test]
    fn any_moment_of_either_form_is_the_moment_chrono_reads(seconds in -62_167_219_200i64..253_402_300_799) {
        let moment = UnixTime(seconds);
        let long = moment.to_datetime().format("%Y%m%d%H%M%SZ").to_string();
        prop_assert_eq!(asn1_time(long.as_bytes()), Some(moment));
        if (-631_152_000..2_524_608_000).contains(&seconds) {
            prop_assert_eq!(asn1_time(&long.as_bytes()[2..]), Some(moment));
        }
    }

    #[test]
    fn any_octets_are_read_without_a_panic(text in proptest::collection::vec(
        prop_oneof![Just(b'\t'), Just(b'\n'), Just(b'V'), Just(b'R'), Just(b'0'), Just(b'Z'), any::<u8>()], 0..200)) {
        let (_, _, octets) = portions(&text);
        prop_assert_eq!(octets, text.len() as u64);
    }
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("index.txt");
    std::fs::write(&path, text).unwrap();
    path
}

async fn import_quietly(store: &dyn Store, issuer: IssuerId, path: &Path) -> Report {
    import(store, issuer, path, NOW, &mut |_| {}).await.unwrap()
}

#[tokio::test]
async fn good_lines_go_in_bad_ones_are_listed_and_a_second_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, issuer) = store_with(folder.path(), b"c").await;
    let path = write(
        folder.path(),
        "V\t261231235959Z\t\t01\tunknown\t/CN=a\n\
         R\t261231235959Z\t260102030405Z,superseded\t02\tunknown\t/CN=b\n\
         nonsense\n\
         V\t261231235959Z\t\t03\tunknown\t/CN=c\n\
         R\t261231235959Z\t260102030405Z\t03\tunknown\t/CN=c\n",
    );
    let mut seen = Vec::new();
    let first = import(&*store, issuer, &path, NOW, &mut |progress| seen.push(progress)).await.unwrap();
    assert_eq!(first.outcome, Outcome { added: 3, changed: 1, unchanged: 0 });
    assert_eq!((first.rows, first.problems.count), (5, 1));
    assert_eq!(first.problems.first[0].place, "line 3");
    let length = std::fs::metadata(&path).unwrap().len();
    assert_eq!(seen, [Progress { rows: 5, octets: length, total: length }]);
    let third = store.certificate(issuer, &"03".parse().unwrap()).await.unwrap().unwrap().certificate;
    assert!(third.revocation.is_some());

    let position = store.feed_position().await.unwrap();
    let again = import_quietly(&*store, issuer, &path).await;
    assert_eq!(again.outcome, Outcome { added: 0, changed: 0, unchanged: 4 });
    assert_eq!(store.feed_position().await.unwrap(), position);
    let json = serde_json::to_value(&first).unwrap();
    assert_eq!((&json["added"], &json["problems"]["first"][0]["place"]), (&3.into(), &"line 3".into()));
}

#[tokio::test]
async fn a_file_of_several_portions_goes_in_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (store, issuer) = store_with(folder.path(), b"c").await;
    let rows = PORTION * 2 + 10;
    let mut text = String::new();
    for number in 1..=rows {
        writeln!(
            text,
            "V\t261231235959Z\t\t{:016X}\tunknown\t/CN=a",
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
        .unwrap();
    }
    let path = write(folder.path(), &text);
    let mut calls = 0;
    let report = import(&*store, issuer, &path, NOW, &mut |_| calls += 1).await.unwrap();
    assert_eq!((report.outcome.added, calls), (rows as u64, 3));
    assert_eq!(store.counts(issuer, UnixTime(0)).await.unwrap().unexpired, rows as u64);
}

#[test]
fn a_portion_holds_neighbours_in_the_index_and_what_comes_later_of_a_serial_stays_later() {
    let serial = |number: usize| format!("{:016X}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 62);
    let mut text = String::from("bad\n");
    for number in 0..PORTION * 2 {
        writeln!(text, "V\t261231235959Z\t\t{}\tunknown\t/CN=a", serial(number)).unwrap();
    }
    writeln!(text, "R\t261231235959Z\t260102030405Z\t{}\tunknown\t/CN=a", serial(0)).unwrap();
    let mut portions = Vec::new();
    read_portions(text.as_bytes(), NOW, &mut |portion| {
        portions.push(portion);
        true
    })
    .unwrap();
    let lengths: Vec<_> = portions.iter().map(|portion| portion.entries.len()).collect();
    assert_eq!(lengths, [PORTION, PORTION, 1]);
    let rows: Vec<_> = portions.iter().map(|portion| portion.rows).collect();
    assert_eq!(rows, [PORTION as u64, PORTION as u64, 2], "the bad line is in the last");
    assert_eq!(portions.iter().map(|portion| portion.octets).sum::<u64>(), text.len() as u64);
    assert_eq!(portions.iter().map(|portion| portion.problems.count).sum::<u64>(), 1);
    let entries: Vec<_> = portions.into_iter().flat_map(|portion| portion.entries).collect();
    assert!(entries.is_sorted_by_key(|entry| entry.serial.as_der_content().to_vec()));
    let twice: Vec<_> = entries.iter().filter(|entry| entry.serial.to_string() == serial(0)).collect();
    assert_eq!(twice.iter().map(|entry| entry.revocation.is_some()).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, issuer) = store_with(folder.path(), b"c").await;
    let error = import(&*store, issuer, Path::new("absent/index.txt"), NOW, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("reading absent/index.txt: No such file"), "{error}");
}

#[tokio::test]
async fn what_openssl_ca_writes_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (store, issuer) = store_with(at, b"c").await;
    std::fs::write(
        at.join("ca.cnf"),
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n\
         policy=p\nunique_subject=no\nrand_serial=yes\n[p]\ncommonName=supplied\n\
         [req]\ndistinguished_name=n\nprompt=no\nutf8=yes\n[n]\ncommonName=demo\n",
    )
    .unwrap();
    std::fs::write(at.join("index.txt"), "").unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "ca.cnf"];
    let request = |more: &[&str]| run(at, "openssl", &[&["req"], &key[..], more].concat());
    request(&["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30"]);
    let ca = ["ca", "-config", "ca.cnf", "-batch", "-keyfile", "ca.key", "-cert", "ca.pem", "-notext"];
    let revocations = [
        None,
        Some(["-crl_reason", "cessationOfOperation"]),
        Some(["-crl_hold", "holdInstructionReject"]),
        Some(["-crl_compromise", "20260101000000Z"]),
        Some(["-crl_CA_compromise", "20260101000000Z"]),
    ];
    for (number, revocation) in revocations.iter().enumerate() {
        let name = format!("/CN=b\u{fc}cher, tab\\\t{number}");
        let (csr, out) = (format!("{number}.csr"), format!("{number}.pem"));
        request(&["-subj", &name, "-keyout", "leaf.key", "-out", &csr]);
        run(at, "openssl", &[&ca[..], &["-days", "10", "-in", &csr, "-out", &out]].concat());
        if let Some(revocation) = revocation {
            run(at, "openssl", &[&ca[..], &["-revoke", &out], revocation].concat());
        }
    }
    let report = import_quietly(&*store, issuer, &at.join("index.txt")).await;
    assert_eq!((report.outcome.added, report.problems.count), (5, 0), "{:?}", report.problems);
    for (number, reason) in [
        None,
        Some(CrlReason::CessationOfOperation),
        Some(CrlReason::CertificateHold),
        Some(CrlReason::KeyCompromise),
        Some(CrlReason::CaCompromise),
    ]
    .into_iter()
    .enumerate()
    {
        let serial = run(at, "openssl", &["x509", "-in", &format!("{number}.pem"), "-noout", "-serial"]);
        let serial = String::from_utf8(serial).unwrap().trim().replace("serial=", "").parse().unwrap();
        let state = store.certificate(issuer, &serial).await.unwrap().unwrap();
        assert_eq!(state.certificate.revocation.map(|revocation| revocation.reason), reason.map(Some));
    }
}

#[tokio::test]
async fn what_easyrsa_writes_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (store, issuer) = store_with(at, b"c").await;
    let easyrsa = |arguments: &[&str]| {
        run(
            at,
            "/usr/share/easy-rsa/easyrsa",
            &[&["--batch", "--use-algo=ec", "--curve=prime256v1"], arguments].concat(),
        )
    };
    easyrsa(&["init-pki"]);
    easyrsa(&["build-ca", "nopass"]);
    for name in ["one", "two"] {
        easyrsa(&["build-server-full", name, "nopass"]);
    }
    easyrsa(&["revoke", "two", "keyCompromise"]);
    let report = import_quietly(&*store, issuer, &at.join("pki/index.txt")).await;
    assert_eq!((report.outcome.added, report.problems.count), (2, 0), "{:?}", report.problems);
    let counts = store.counts(issuer, UnixTime(0)).await.unwrap();
    assert_eq!((counts.unexpired, counts.revoked), (2, 1));
}

/// B8: what is on hold is listed; and a date that no answer can have is a bad line.
#[test]
fn holds_are_listed_and_revocations_of_the_future_are_bad_lines() {
    let now = time("2026-01-02T03:04:05Z");
    let rows = [
        ("01", "260102030405Z,certificateHold"),
        ("02", "260102040405Z"),
        ("03", "260102040406Z,superseded"),
    ];
    let text: String = rows
        .iter()
        .map(|(serial, revoked)| format!("R\t261231235959Z\t{revoked}\t{serial}\tunknown\t/CN=a\n"))
        .collect();
    let mut portions = Vec::new();
    read_portions(text.as_bytes(), now, &mut |portion| {
        portions.push(portion);
        true
    })
    .unwrap();
    let portion = portions.remove(0);
    assert_eq!((portion.rows, portion.entries.len()), (3, 2), "an hour is a matter of clocks");
    assert_eq!(portion.holds.first, ["01"]);
    let problem = &portion.problems.first[0];
    assert_eq!(problem.place, "line 3");
    assert!(problem.reason.contains("2026-01-02T04:04:06Z lies in the future"), "{}", problem.reason);
}
