//! A certification authority run by OpenSSL, with its `index.txt`.

use std::fs;
use std::path::{Path, PathBuf};

use goodstanding::clock::UnixTime;

use super::command::{Ran, sh};

/// The kind of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Rsa2048,
    P256,
}

impl KeyKind {
    /// The name of the key algorithm on Goodstanding's command line.
    pub(crate) fn algorithm(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::P256 => "p256",
        }
    }

    fn openssl(self) -> [&'static str; 4] {
        match self {
            Self::Rsa2048 => ["-newkey", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"],
            Self::P256 => ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        }
    }
}

/// The authority, in a folder of its own.
#[derive(Debug)]
pub(crate) struct TestCa {
    dir: PathBuf,
}

/// A certificate that the authority issued.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// The certificate, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) key: PathBuf,
    /// Its serial number as upper-case hex, two digits an octet.
    pub(crate) serial: String,
    /// Its DNS name.
    pub(crate) name: String,
}

impl TestCa {
    /// Makes an authority in `dir` whose certificates point at `ocsp_url`.
    pub(crate) fn new(dir: &Path, kind: KeyKind, ocsp_url: &str) -> Self {
        let ca = Self { dir: dir.to_owned() };
        for folder in ["certs", "new"] {
            fs::create_dir_all(ca.file(folder)).unwrap();
        }
        fs::write(ca.file("index.txt"), "").unwrap();
        fs::write(ca.file("index.txt.attr"), "unique_subject = no\n").unwrap();
        fs::write(ca.file("ca.cnf"), configuration(dir, ocsp_url)).unwrap();
        let mut arguments = vec!["req", "-x509", "-nodes", "-sha256", "-days", "3650", "-batch"];
        arguments.extend(kind.openssl());
        let (config, key, certificate) = (ca.text("ca.cnf"), ca.text("ca.key"), ca.text("ca.pem"));
        arguments.extend(["-subj", "/C=DE/O=Goodstanding Tests/CN=Test CA", "-config", &config]);
        arguments.extend(["-extensions", "authority", "-keyout", &key, "-out", &certificate]);
        sh("openssl", &arguments).ok();
        ca
    }

    /// A file of the authority's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The authority's certificate, PEM.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// Its private key, PEM.
    pub(crate) fn key(&self) -> PathBuf {
        self.file("ca.key")
    }

    /// OpenSSL's database of what it issued.
    pub(crate) fn index(&self) -> PathBuf {
        self.file("index.txt")
    }

    /// Issues a TLS server certificate for a DNS name.
    pub(crate) fn issue(&self, name: &str) -> Leaf {
        self.issue_with(name, &["-days", "90"])
    }

    /// Issues one whose validity is over.
    pub(crate) fn issue_expired(&self, name: &str) -> Leaf {
        self.issue_with(name, &["-startdate", "20250101000000Z", "-enddate", "20250401000000Z"])
    }

    /// Issues a precertificate: what a certificate transparency log signs for.
    pub(crate) fn issue_precertificate(&self, name: &str) -> Leaf {
        let poison = ["-addext", "1.3.6.1.4.1.11129.2.4.3=critical,DER:05:00"];
        self.issue_as(name, &["-days", "90"], &poison)
    }

    fn issue_with(&self, name: &str, validity: &[&str]) -> Leaf {
        self.issue_as(name, validity, &[])
    }

    /// With more arguments for the request, whose extensions are taken over.
    fn issue_as(&self, name: &str, validity: &[&str], more: &[&str]) -> Leaf {
        let key = self.file("certs").join(format!("{name}.key"));
        let certificate = self.file("certs").join(format!("{name}.pem"));
        let request = self.text(&format!("certs/{name}.csr"));
        let (subject, san) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
        let mut arguments = vec!["req", "-new", "-nodes", "-batch"];
        arguments.extend(KeyKind::P256.openssl());
        arguments.extend(more);
        arguments.extend(["-subj", &subject, "-addext", &san, "-out", &request, "-keyout"]);
        sh("openssl", &[arguments, vec![utf8(&key)]].concat()).ok();
        let issue = ["-batch", "-notext", "-in", &request, "-out", utf8(&certificate)];
        self.ca(&[&issue[..], validity].concat());
        let serial = sh("openssl", &["x509", "-noout", "-serial", "-in", utf8(&certificate)]).ok().out();
        let serial = serial.trim().trim_start_matches("serial=").to_owned();
        Leaf { certificate, key, serial, name: name.to_owned() }
    }

    /// Revokes a certificate in OpenSSL's database and says when it took effect there.
    pub(crate) fn revoke(&self, leaf: &Leaf, reason: &str) -> UnixTime {
        self.ca(&["-revoke", utf8(&leaf.certificate), "-crl_reason", reason]);
        let index = fs::read_to_string(self.index()).unwrap();
        let row = index.lines().find(|line| line.contains(&leaf.serial)).unwrap();
        let revoked = row.split('\t').nth(2).unwrap().split(',').next().unwrap();
        let time = chrono::NaiveDateTime::parse_from_str(revoked, "%y%m%d%H%M%SZ").unwrap();
        UnixTime::from(time.and_utc())
    }

    /// Publishes a CRL with everything revoked so far.
    pub(crate) fn crl(&self) -> PathBuf {
        let path = self.file("ca.crl");
        self.ca(&["-gencrl", "-crldays", "7", "-out", utf8(&path)]);
        path
    }

    fn ca(&self, arguments: &[&str]) -> Ran {
        let config = self.text("ca.cnf");
        sh("openssl", &[&["ca", "-config", &config], arguments].concat()).ok()
    }

    fn text(&self, name: &str) -> String {
        utf8(&self.file(name)).to_owned()
    }
}

/// A path of ours as text; test folders have plain names.
pub(crate) fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn configuration(dir: &Path, ocsp_url: &str) -> String {
    let dir = dir.display();
    format!(
        "[ca]
default_ca = test
[test]
database = {dir}/index.txt
new_certs_dir = {dir}/new
certificate = {dir}/ca.pem
private_key = {dir}/ca.key
rand_serial = yes
default_md = sha256
policy = policy
copy_extensions = copy
x509_extensions = leaf
[policy]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
authorityInfoAccess = OCSP;URI:{ocsp_url}
"
    )
}
