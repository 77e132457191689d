use super::*;
use crate::signer::KeyReference;

const MINIMAL: &str = "[store]\nurl = \"sqlite://var/x.db\"\n";

fn messages(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_err()
        .into_iter()
        .map(|problem| format!("{}: {}", problem.line, problem.message))
        .collect()
}

#[test]
fn the_least_configuration_takes_the_defaults() {
    let settings = parse(MINIMAL).unwrap();
    assert_eq!(settings.endpoint.listen, ["127.0.0.1:8889".parse().unwrap()]);
    assert_eq!(settings.freshness.preset(), Preset::WebPki);
    assert_eq!(settings.freshness.refresh(), Duration::from_secs(84 * 3_600));
    assert!(settings.tokens.is_empty() && settings.issuers.is_empty());
}

#[test]
fn the_sample_says_what_the_contract_shows() {
    let settings = parse(include_str!("../../config/goodstanding.toml")).unwrap();
    assert_eq!(settings.store_url, "sqlite://var/goodstanding.db");
    assert_eq!(settings.control.listen, "127.0.0.1:8890".parse().unwrap());
    let [token] = &settings.tokens[..] else { panic!("one token") };
    assert_eq!((token.name.as_str(), token.sessions), ("hsm-a", 2));
    assert_eq!(token.pin, PinSource::File("var/softhsm/pin".into()));
    let [issuer] = &settings.issuers[..] else { panic!("one issuer") };
    assert_eq!(issuer.cert_id_hashes, [HashAlgorithm::Sha1, HashAlgorithm::Sha256]);
    assert_eq!(issuer.responders[0].key, KeyReference::Label("ocsp-demo-1".into()));
    assert_eq!(settings.capacity.pack_max, 1);
}

#[test]
fn every_preset_is_a_token_that_parses() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/presets");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = format!("{MINIMAL}{}", std::fs::read_to_string(&path).unwrap());
            let settings = parse(&text).unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
            assert_eq!(settings.tokens.len(), 1, "{}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 6);
}

#[test]
fn every_error_is_told_at_once_with_its_line() {
    let text = r#"
[store]
path = "x"
[ocsp]
listen = ["127.0.0.1"]
nonce = "maybe"
[policy]
preset = "web-pki"
validity = "20d"
[[token]]
name = "a"
module = 7
label = "x"
pin_file = "p"
pin_env = "P"
sessions = 0
[[issuer]]
name = "demo"
  [[issuer.responder]]
  token = "b"
  key = "k"
  certificate = "c"
"#;
    let found = messages(text);
    let expected = [
        "store.url is missing",
        "3: unknown field \"path\" in store; known are url",
        "5: ocsp.listen: invalid socket address syntax",
        "6: ocsp.nonce: \"maybe\" is none of ignore, echo",
        "policy: validity 20days is outside 8h to 10days (Baseline Requirements 4.9.9)",
        "12: token.module must be a string in quotes",
        "token: give exactly one of pin_file, pin_env, pin_credential",
        "16: token.sessions must be a whole number from 1 to 1024",
        "issuer.certificate is missing",
        "20: issuer.responder.token: there is no [[token]] named \"b\"",
    ];
    for expected in expected {
        assert!(found.iter().any(|message| message.contains(expected)), "{expected:?} is not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_syntax_error_is_told_with_its_line() {
    let found = messages("[store]\nurl = \"sqlite://x\n[ocsp]\n");
    assert!(found[0].starts_with("2: "), "{found:?}");
}

/// B8.
#[test]
fn revoked_for_unknown_serials_needs_the_private_preset() {
    let text =
        |preset| format!("{MINIMAL}[ocsp]\nunknown_serial = \"revoked\"\n[policy]\npreset = \"{preset}\"\n");
    assert!(messages(&text("web-pki"))[0].contains("4: ocsp.unknown_serial"));
    assert!(messages(&text("microsoft"))[0].contains("certificateHold"));
    assert_eq!(parse(&text("private")).unwrap().responder.unknown_serial, UnknownSerial::Revoked);
}

/// B10, B8: each issuer's own answers, and what is barred for one is barred.
#[test]
fn an_issuer_may_have_its_own_preset_validity_and_refresh() {
    let text = |own: &str| format!("{MINIMAL}[[issuer]]\nname = \"i\"\ncertificate = \"c\"\n{own}\n");
    let own = |own: &str| parse(&text(own)).unwrap().issuers[0].freshness;
    assert_eq!(own(""), None);
    let day = Duration::from_secs(86_400);
    let sub_ca = own("preset = \"sub-ca\"\nvalidity = \"365d\"\nrefresh = \"30d\"").unwrap();
    assert_eq!(sub_ca, Freshness::new(Preset::SubCa, 365 * day, 30 * day).unwrap());
    let shorter = own("refresh = \"1d\"").unwrap();
    assert_eq!((shorter.preset(), shorter.validity(), shorter.refresh()), (Preset::WebPki, 7 * day, day));
    let told = messages(&text("preset = \"sub-ca\"\nvalidity = \"400d\""));
    assert!(told[0].contains("issuer: validity") && told[0].contains("subordinate CAs"), "{told:?}");
    let barred = format!(
        "{MINIMAL}[ocsp]\nunknown_serial = \"revoked\"\n[policy]\npreset = \"private\"\n[[issuer]]\nname = \"i\"\ncertificate = \"c\"\npreset = \"web-pki\"\n"
    );
    assert!(messages(&barred)[0].contains("which the preset web-pki bars"), "{:?}", messages(&barred));
}

#[test]
fn history_a_crl_and_the_time_of_a_take_over_are_read_and_held_to_their_form() {
    let text = |own: &str, from: &str| {
        format!(
            "{MINIMAL}[[token]]\nname = \"a\"\nmodule = \"m\"\nlabel = \"l\"\npin_env = \"P\"\n[[issuer]]\nname = \"i\"\ncertificate = \"c\"\n{own}\n[[issuer.responder]]\ntoken = \"a\"\ncertificate = \"r\"\nkey = \"k\"\n{from}\n"
        )
    };
    let url = "http://crl.example.org/ca.crl";
    let settings =
        parse(&text(&format!("history = \"30d\"\ncrl_url = \"{url}\""), "from = \"2026-12-01T00:00:00Z\""));
    let issuer = settings.unwrap().issuers.remove(0);
    assert_eq!((issuer.history, issuer.crl_url.as_deref()), (Duration::from_secs(30 * 86_400), Some(url)));
    assert_eq!(issuer.responders[0].from, Some(UnixTime(1_796_083_200)));
    assert!(messages(&text("crl_url = \"ftp://x\"", ""))[0].contains("issuer.crl_url"));
    assert!(messages(&text("", "from = \"tomorrow\""))[0].contains("issuer.responder.from"));
}

#[test]
fn the_control_listener_stays_on_loopback() {
    let found = messages(&format!("{MINIMAL}[control]\nlisten = \"0.0.0.0:8890\"\n"));
    assert!(found[0].contains("loopback"), "{found:?}");
}

#[test]
fn a_key_is_named_by_label_or_by_id_but_not_by_both() {
    let text = |key: &str| {
        format!(
            "{MINIMAL}[[token]]\nname = \"a\"\nmodule = \"m\"\nlabel = \"l\"\npin_env = \"P\"\n[[issuer]]\nname = \"i\"\ncertificate = \"c\"\n[[issuer.responder]]\ntoken = \"a\"\ncertificate = \"r\"\n{key}\n"
        )
    };
    let key = |text: &str| parse(text).unwrap().issuers[0].responders[0].key.clone();
    assert_eq!(key(&text("id = \"01aB\"")), KeyReference::Id(vec![1, 0xab]));
    assert_eq!(key(&text("key = \"k\"")), KeyReference::Label("k".into()));
    assert!(messages(&text(""))[0].contains("exactly one of key"));
    assert!(messages(&text("key = \"k\"\nid = \"01\""))[0].contains("exactly one of key"));
    assert!(messages(&text("id = \"xyz\"")).iter().any(|message| message.contains("issuer.responder.id")));
}

#[test]
fn the_guard_reckons_with_what_capacity_says_and_with_defaults_where_it_does_not() {
    let capacity = |text: &str| parse(&format!("{MINIMAL}[capacity]\n{text}\n")).unwrap().capacity;
    let day = Duration::from_secs(86_400);
    let set = capacity(
        "lease = \"4m\"\nsafe_multiplier = 0\nslope = 0.1\ndead_band = 0.02\nlifetime = \"47d\"\nrenewal_share = 0.8",
    );
    assert_eq!((set.lease, set.safe_multiplier), (Duration::from_secs(240), 0.0));
    assert_eq!((set.slope, set.dead_band, set.renewal_share), (0.1, 0.02, 0.8));
    assert_eq!((set.lifetime, set.renewal_age), (47 * day, 32 * day), "two thirds");
    let usual = capacity("");
    assert_eq!((usual.lease, usual.safe_multiplier), (Duration::from_secs(600), 0.25));
    assert_eq!((usual.slope, usual.dead_band), (0.05, 0.05));
    assert_eq!((usual.lifetime, usual.renewal_age, usual.renewal_share), (90 * day, 60 * day, 0.9));
}

#[test]
fn what_the_guard_cannot_reckon_with_is_told() {
    let found = messages(&format!(
        "{MINIMAL}[capacity]\nlease = \"10s\"\nsafe_multiplier = 1.5\nslope = 0\ndead_band = 0.9\nlifetime = \"36h\"\nrenewal_age = \"90d\"\nrenewal_share = -1\n"
    ));
    let expected = [
        "capacity.lease must be from 1m to 1d",
        "5: capacity.safe_multiplier must be a number from 0 to 1",
        "6: capacity.slope must be a number from 0.001 to 15",
        "7: capacity.dead_band must be a number from 0 to 0.5",
        "capacity.lifetime must be whole days",
        "capacity.renewal_age is later than capacity.lifetime",
        "10: capacity.renewal_share must be a number from 0 to 1",
    ];
    for expected in expected {
        assert!(found.iter().any(|message| message.contains(expected)), "{expected:?} is not in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn the_page_that_explains_the_limits_is_a_url() {
    let help = |text: &str| format!("{MINIMAL}[limits]\nhelp = \"{text}\"\n");
    let page = "https://ca.example/limits";
    assert_eq!(parse(&help(page)).unwrap().limits_help.as_deref(), Some(page));
    for wrong in ["ca.example", "https://ca.example/a b", "https://ca.example/>", "ftp://ca.example"] {
        assert!(messages(&help(wrong))[0].contains("4: limits.help"), "{wrong}");
    }
}
