//! The control file: what is to go wrong, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::codes::Code;
use super::functions::Function;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Control {
    /// The module that is forwarded to. It is loaded once; a change later has no effect.
    pub module: PathBuf,
    /// Labels of tokens that are out of their slots. Their sessions are closed when they go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Mechanisms (CKM numbers) that are left out of C_GetMechanismList.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden_mechanisms: Vec<u64>,
    /// Signatures a second by token label: of the whole token, shared by all sessions of all processes
    /// that use this file. No limit for tokens that are not named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rate: BTreeMap<String, f64>,
    /// What goes wrong. Of several faults that a call meets, the first in the file happens.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// One fault: which calls it meets, which of those it happens to, and what happens.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// The functions it meets; none for all but C_Initialize and C_Finalize.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<Function>,
    /// Only calls about the token of this label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Only C_Sign and C_SignUpdate of messages that contain these octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Hex>,
    /// Happens from this call on, of those it meets (1 is the first). Counted in each process, anew
    /// when the file changes.
    #[serde(skip_serializing_if = "is_one")]
    pub from: u64,
    /// Happens to every so manieth of them.
    #[serde(skip_serializing_if = "is_one")]
    pub every: u64,
    /// Happens to about this share of them, from 0 to 1, as `seed` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Makes `chance` repeatable.
    #[serde(skip_serializing_if = "is_zero")]
    pub seed: u64,
    /// Happens so often at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Is over when this function has succeeded after the fault happened. C_FindObjects counts for its
    /// own session, and also when the fault has not happened yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Function>,
    /// The call takes so long first.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_ms: u64,
    /// The call does not come back until the file changes.
    #[serde(skip_serializing_if = "is_false")]
    pub hang: bool,
    /// What is done to the token behind the caller's back, before the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
    /// C_SignInit takes the private key with this CKA_LABEL instead of the one it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is done to the signature that the token made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Mangling>,
    /// The call fails with this code, without being forwarded unless `applied`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The call is forwarded, and what came of it stays, before it fails with `code`.
    #[serde(skip_serializing_if = "is_false")]
    pub applied: bool,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            functions: Vec::new(),
            token: None,
            message: None,
            from: 1,
            every: 1,
            chance: None,
            seed: 0,
            times: None,
            until: None,
            delay_ms: 0,
            hang: false,
            act: None,
            key: None,
            signature: None,
            code: None,
            applied: false,
        }
    }
}

/// What is done to a token behind the caller's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// The session of the call is closed.
    CloseSession,
    /// Every session with the token is closed, and with the last of them the login goes.
    CloseAllSessions,
    /// The user is logged out.
    Logout,
}

/// What is done to a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mangling {
    /// One bit is changed.
    Corrupt,
    /// The last octet is missing.
    Truncated,
    /// All octets are zero.
    Zero,
}

/// Octets, in files as hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl Control {
    /// Forwards to `module`, with nothing wrong.
    #[must_use]
    pub fn of(module: impl Into<PathBuf>) -> Self {
        Self { module: module.into(), ..Self::default() }
    }

    /// Reads a control file's text.
    ///
    /// # Errors
    /// What is wrong in it, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let control: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if control.module.as_os_str().is_empty() {
            return Err("`module` is empty: it must name the PKCS#11 module to forward to".to_owned());
        }
        for (label, rate) in &control.rate {
            if !(rate.is_finite() && *rate > 0.0) {
                return Err(format!("the rate of {label:?} must be above 0 signatures a second"));
            }
        }
        control.faults.iter().enumerate().try_for_each(|(number, fault)| {
            fault.check().map_err(|what| format!("fault {}: {what}", number + 1))
        })?;
        Ok(control)
    }

    /// The text of the control file.
    #[must_use]
    pub fn text(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| unreachable!("a control file of plain values: {error}"))
    }

    /// Puts it in the place of the control file, in one step.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        std::fs::write(&new, self.text())?;
        std::fs::rename(new, path)
    }
}

impl Fault {
    /// A fault of these functions that does nothing yet.
    #[must_use]
    pub fn of(functions: &[Function]) -> Self {
        Self { functions: functions.to_vec(), ..Self::default() }
    }

    /// The functions fail with this code, and are not applied.
    #[must_use]
    pub fn fails(functions: &[Function], code: &str) -> Self {
        let code = Code::parse(code).unwrap_or_else(|| panic!("{code:?} is no return code of PKCS#11"));
        Self { code: Some(code), ..Self::of(functions) }
    }

    fn check(&self) -> Result<(), String> {
        if self.from == 0 || self.every == 0 {
            return Err("`from` and `every` count from 1".to_owned());
        }
        if self.chance.is_some_and(|chance| !(0.0..=1.0).contains(&chance)) {
            return Err("`chance` is a share from 0 to 1".to_owned());
        }
        if self.applied && self.code.is_none() {
            return Err("`applied` needs the `code` that is reported".to_owned());
        }
        let only = |functions: &[Function]| {
            !self.functions.is_empty() && self.functions.iter().all(|each| functions.contains(each))
        };
        let signing = [Function::C_Sign, Function::C_SignFinal];
        if self.signature.is_some() && !only(&signing) {
            return Err("`signature` is for functions = [\"C_Sign\", \"C_SignFinal\"]".to_owned());
        }
        if self.key.is_some() && !only(&[Function::C_SignInit]) {
            return Err("`key` is for functions = [\"C_SignInit\"]".to_owned());
        }
        if self.message.is_some() && !only(&[Function::C_Sign, Function::C_SignUpdate]) {
            return Err("`message` is for functions = [\"C_Sign\", \"C_SignUpdate\"]".to_owned());
        }
        let nothing = self.delay_ms == 0
            && !self.hang
            && self.act.is_none()
            && self.key.is_none()
            && self.signature.is_none()
            && self.code.is_none();
        if nothing {
            return Err("nothing happens: give one of delay-ms, hang, act, key, signature, code".to_owned());
        }
        Ok(())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_one(number: &u64) -> bool {
    *number == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl Hex {
    /// The octets of a text of hex digits, at least one octet.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        let digits = digits.filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2))?;
        Some(Self(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is no row of octets: write two hex digits for each"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        module = "/usr/lib/softhsm/libsofthsm2.so"
        removed = ["other"]
        hidden-mechanisms = [1]
        [rate]
        tests = 14.0
        [[fault]]
        functions = ["C_Sign"]
        token = "tests"
        message = "0aFF"
        from = 3
        every = 2
        times = 5
        code = "CKR_DEVICE_ERROR"
        applied = true
        [[fault]]
        code = "CKR_CRYPTOKI_NOT_INITIALIZED"
        until = "C_Initialize"
        [[fault]]
        functions = ["C_SignInit"]
        key = "another"
        until = "C_FindObjects"
        [[fault]]
        functions = ["C_Sign"]
        hang = true
        [[fault]]
        functions = ["C_Sign"]
        chance = 0.25
        seed = 7
        delay-ms = 20
        act = "close-session"
        signature = "truncated"
    "#;

    #[test]
    fn a_control_file_is_read_in_all_its_parts() {
        let control = Control::parse(WHOLE).unwrap();
        assert_eq!(control.module, Path::new("/usr/lib/softhsm/libsofthsm2.so"));
        assert_eq!(
            (control.removed.len(), control.hidden_mechanisms[0], control.rate["tests"]),
            (1, 1, 14.0)
        );
        let first = &control.faults[0];
        assert_eq!((first.from, first.every, first.times, first.applied), (3, 2, Some(5), true));
        assert_eq!(first.message, Some(Hex(vec![0x0a, 0xff])));
        assert_eq!(first.code, Code::parse("CKR_DEVICE_ERROR"));
        assert_eq!(control.faults[1].functions, []);
        assert_eq!(control.faults[1].until, Some(Function::C_Initialize));
        assert_eq!(control.faults[2].key.as_deref(), Some("another"));
        assert!(control.faults[3].hang);
        let last = &control.faults[4];
        assert_eq!((last.chance, last.seed, last.delay_ms), (Some(0.25), 7, 20));
        assert_eq!((last.act, last.signature), (Some(Act::CloseSession), Some(Mangling::Truncated)));
    }

    #[test]
    fn a_control_file_is_written_as_it_is_read() {
        let control = Control::parse(WHOLE).unwrap();
        assert_eq!(Control::parse(&control.text()), Ok(control));
        let empty = Control::of("/module.so");
        assert_eq!(empty.text(), "module = \"/module.so\"\n");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        let sign = "functions = [\"C_Sign\"]";
        for (fault, reason) in [
            ("code = \"CKR_NONSENSE\"", "CKR_NONSENSE"),
            ("functions = [\"C_Sing\"]\nhang = true", "C_Sing"),
            ("cod = \"CKR_OK\"", "cod"),
            (sign, "nothing happens"),
            ("hang = true\nfrom = 0", "count from 1"),
            ("hang = true\nchance = 1.5", "from 0 to 1"),
            ("hang = true\napplied = true", "needs the `code`"),
            ("signature = \"corrupt\"", "is for functions"),
            ("functions = [\"C_Sign\"]\nkey = \"other\"", "C_SignInit"),
            ("functions = [\"C_Login\"]\nhang = true\nmessage = \"00\"", "C_SignUpdate"),
            ("functions = [\"C_Sign\"]\nhang = true\nmessage = \"0\"", "octets"),
        ] {
            let error = Control::parse(&format!("module = \"m\"\n[[fault]]\n{fault}")).unwrap_err();
            assert!(error.contains(reason), "{fault}: {error}");
        }
        assert!(Control::parse("module = \"\"").unwrap_err().contains("empty"));
        assert!(Control::parse("module = \"m\"\n[rate]\na = 0.0").unwrap_err().contains("above 0"));
        assert!(Control::parse("").unwrap_err().contains("module"));
    }
}
