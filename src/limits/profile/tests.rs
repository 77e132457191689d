use super::*;

fn shipped(name: &str) -> Profile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/limits").join(format!("{name}.toml"));
    Profile::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_shipped_profile_reads_and_is_named_after_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/limits");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let profile = Profile::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(profile.name, name);
        assert!(!profile.limits.is_empty());
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["2016-01", "current", "staging", "two-tier"]);
}

#[test]
fn the_shipped_numbers_are_those_that_were_published() {
    let tiers = |profile: &Profile, limit: &str| -> Vec<String> {
        profile.limit(limit).unwrap().1.tiers.iter().map(ToString::to_string).collect()
    };
    let then = shipped("2016-01");
    assert_eq!(tiers(&then, "registrations-per-ip"), ["10/3h"]);
    assert_eq!(tiers(&then, "certificates-per-domain"), ["5/7d"]);
    assert!(!then.limits[1].renewals_exempt, "renewals counted like new ones");
    assert_eq!(tiers(&shipped("two-tier"), "certificates-per-domain"), ["3/2h", "5/1d", "10/7d"]);
    let now = shipped("current");
    assert_eq!(tiers(&now, "orders-per-account"), ["300/3h"]);
    assert_eq!(tiers(&now, "certificates-per-domain"), ["50/7d"]);
    assert_eq!(tiers(&now, "certificates-per-exact-set"), ["5/7d"]);
    assert_eq!(tiers(&now, "registrations-per-ipv6-range"), ["500/3h"]);
    assert_eq!(tiers(&now, "failed-authorizations"), ["5/1h"]);
    let domain = now.limit("certificates-per-domain").unwrap().1;
    assert_eq!((domain.exponent, domain.renewals_exempt, domain.overridable), (1.0, true, true));
    assert_eq!(domain.per, Per::Domain { ipv6: PrefixLength::SUBNET });
    let set = now.limit("certificates-per-exact-set").unwrap().1;
    assert_eq!((set.exponent, set.renewals_exempt), (0.0, false));
    for name in ["2016-01", "two-tier", "current", "staging"] {
        let profile = shipped(name);
        let registrations = profile.limits.iter().filter(|limit| limit.counts == Counts::Registrations);
        assert!(registrations.into_iter().all(|limit| !limit.overridable && limit.exponent == 0.0), "{name}");
    }
}

#[test]
fn every_error_is_told_at_once_with_its_line() {
    let text = r#"name = "No Good"
help = "see the wiki"
reservation = "0s"
warn_percent = 0
colour = "red"

[[limit]]
name = "a"
counts = "apples"
per = "domain"
tiers = ["5/7d"]

[[limit]]
name = "b"
counts = "registrations"
per = "domain"
tiers = ["5/7d", "9/fortnight"]

[[limit]]
name = "c"
counts = "registrations"
per = "ip"
tiers = ["0/7d"]
overridable = true
exponent = 1

[[limit]]
name = "d"
counts = "certificates"
per = "account"
ipv6_prefix = 64
tiers = ["5/2h", "5/1d", "6/24h"]
exponent = -1.0
renewals = "maybe"

[[limit]]
name = "e"
per = "everything"
counts = "orders"
shadow = "yes"

[[limit]]
name = "f"
counts = "orders"
per = "account"
tiers = ["1/1d"]

[[limit]]
name = "f"
counts = "orders"
per = "account"
tiers = ["1/1d"]
"#;
    let problems = Profile::parse(text).unwrap_err();
    let told: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect();
    let line = |number: usize, part: &str| {
        assert!(
            told.iter().any(|problem| problem.starts_with(&format!("{number}: ")) && problem.contains(part)),
            "no {part:?} at line {number}: {told:#?}"
        );
    };
    for (number, part) in [
        (1, "lower-case letters"),
        (2, "URL"),
        (4, "warn_percent must be a whole number from 1 to 100"),
        (5, "unknown field \"colour\""),
        (9, "\"apples\" is none of registrations"),
        (16, "registrations are counted per ip, ipv6-range, everything, not per domain"),
        (17, "\"9/fortnight\" is no tier"),
        (19, "there is no override for registrations"),
        (19, "exponent must be 0 for registrations"),
        (19, "0 would refuse everybody"),
        (30, "ipv6_prefix means nothing per account"),
        (33, "exponent must be a number from 0 to 4"),
        (34, "\"exempt\" or \"count\""),
        (27, "same period"),
        (27, "never reached"),
        (36, "limit.tiers is missing"),
        (40, "shadow must be true or false"),
        (48, "two limits are named \"f\""),
    ] {
        line(number, part);
    }
    assert!(told.iter().any(|problem| problem.contains("reservation must be")), "{told:#?}");
    assert_eq!(told.len(), 19, "{told:#?}");
}

#[test]
fn a_profile_that_is_no_toml_is_told_with_its_line() {
    let problems = Profile::parse("name = \"a\"\nhelp = https\n").unwrap_err();
    assert!(problems.iter().any(|problem| problem.line == 2), "{problems:?}");
    let error = Profile::load(Path::new("config/limits/absent.toml")).unwrap_err().to_string();
    assert!(error.contains("cannot read the limits profile config/limits/absent.toml"), "{error}");
}

#[test]
fn renewals_are_exempt_per_domain_unless_the_profile_says_otherwise() {
    let profile = |per: &str, more: &str| {
        let text = format!(
            "name = \"a\"\nhelp = \"https://a.example/\"\n[[limit]]\nname = \"a\"\ncounts = \"certificates\"\nper = \"{per}\"\ntiers = [\"1/1d\"]\n{more}"
        );
        Profile::parse(&text).unwrap().limits.remove(0)
    };
    assert!(profile("domain", "").renewals_exempt);
    assert!(profile("everything", "").renewals_exempt);
    assert!(!profile("identifiers", "").renewals_exempt);
    assert!(!profile("domain", "renewals = \"count\"").renewals_exempt);
    let limit = profile("domain", "ipv6_prefix = 48\nexponent = 0.5\nshadow = true\noverridable = false");
    assert_eq!(limit.per, Per::Domain { ipv6: PrefixLength::new(48).unwrap() });
    assert!(limit.shadow && !limit.overridable);
    assert_eq!(limit.exponent, 0.5);
}
