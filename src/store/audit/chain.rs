//! The chain of hashes over the lines, and finding where it is broken. Pure.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{AuditHead, AuditLine};
use crate::clock::UnixTime;

/// A SHA-256 value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// What the first line is chained to.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of these pieces, each with its length, so that no two lists have the same octets.
    #[must_use]
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for piece in pieces {
            hash.update((piece.len() as u64).to_be_bytes());
            hash.update(piece);
        }
        Self(hash.finalize().into())
    }

    /// The SHA-256 of these octets alone.
    #[must_use]
    pub fn plain(octets: &[u8]) -> Self {
        Self(Sha256::digest(octets).into())
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> =
            text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
        let octets: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
        (digits.len() == 64).then(|| octets.try_into().ok().map(Self)).flatten()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl AuditLine {
    /// The line that follows `previous`.
    #[must_use]
    pub fn follow(previous: AuditHead, time: UnixTime, actor: String, action: &str, detail: String) -> Self {
        let mut line = Self {
            number: previous.number + 1,
            time,
            actor,
            action: action.to_owned(),
            detail,
            previous: previous.hash,
            hash: Digest::ZERO,
        };
        line.hash = line.reckon();
        line
    }

    /// What its hash has to be.
    fn reckon(&self) -> Digest {
        Digest::of([
            b"goodstanding audit line 1".as_slice(),
            &self.previous.0,
            &self.number.to_be_bytes(),
            &self.time.0.to_be_bytes(),
            self.actor.as_bytes(),
            self.action.as_bytes(),
            self.detail.as_bytes(),
        ])
    }

    /// Where a log that ends with this line ends.
    #[must_use]
    pub const fn head(&self) -> AuditHead {
        AuditHead { number: self.number, hash: self.hash }
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line's text does not give its hash.
    #[error("line {0} was changed: its text does not give its hash")]
    Changed(i64),
    /// Lines are not there.
    #[error("{} missing", span(*.first, *.last))]
    Missing {
        /// The first of them.
        first: i64,
        /// The last of them.
        last: i64,
    },
    /// A whole line was put in the place of another.
    #[error(
        "line {before} is not the line that line {after} was chained to: one of them was put in its place, or moved"
    )]
    Unchained {
        /// The line before.
        before: i64,
        /// The line that follows it.
        after: i64,
    },
    /// Two lines have one number, or the order is not that of the numbers.
    #[error("line {0} is there again, or out of order")]
    OutOfOrder(i64),
    /// The anchor's line was archived.
    #[error(
        "line {0}, which an anchor names, is not in the database: it was archived; give the archive with --archive"
    )]
    Archived(i64),
    /// The log ends before the anchor.
    #[error("the log ends with line {end}, but line {anchor} was written: its end was cut off")]
    CutOff {
        /// The last line there is.
        end: i64,
        /// The anchor's line.
        anchor: i64,
    },
    /// The anchor's line is another one.
    #[error("line {0} is not the one that the anchor names: the log was written anew")]
    Rewritten(i64),
}

fn span(first: i64, last: i64) -> String {
    if first == last { format!("line {first} is") } else { format!("lines {first} to {last} are") }
}

/// The line that is left where the lines before were archived and removed. It stands in the chain like any
/// other, and names the last of those lines.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint;

impl Checkpoint {
    /// The action of such a line.
    pub const ACTION: &'static str = "audit.prune";

    /// The last line that was removed, by such a line.
    #[must_use]
    pub fn of(line: &AuditLine) -> Option<AuditHead> {
        if line.action != Self::ACTION {
            return None;
        }
        let detail: serde_json::Value = serde_json::from_str(&line.detail).ok()?;
        detail["through"].as_str()?.parse().ok()
    }
}

/// Reads the log from its first line to its last and finds every fault.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    head: AuditHead,
    anchors: Vec<AuditHead>,
    /// Where the lines before the first one ended, if that is not line 1.
    before: Option<AuditHead>,
    /// Whether a line says that those were archived.
    archived: bool,
}

impl Verifier {
    /// One that expects the log to have these lines too.
    #[must_use]
    pub fn with_anchors(anchors: Vec<AuditHead>) -> Self {
        Self { anchors, ..Self::default() }
    }

    /// Reads the next line; what is wrong at it. Reading goes on from this line as it stands.
    ///
    /// A log that begins later than with line 1 is whole when one of its lines is the checkpoint that was left
    /// for exactly the lines before ([`Checkpoint`]).
    pub fn read(&mut self, line: &AuditLine) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.head == AuditHead::default() && line.number > 1 {
            self.head = AuditHead { number: line.number - 1, hash: line.previous };
            self.before = Some(self.head);
        }
        let expected = self.head.number + 1;
        if line.number > expected {
            faults.push(Fault::Missing { first: expected, last: line.number - 1 });
        } else if line.number < expected {
            faults.push(Fault::OutOfOrder(line.number));
        }
        if line.reckon() != line.hash {
            faults.push(Fault::Changed(line.number));
        } else if line.number == expected && line.previous != self.head.hash {
            faults.push(Fault::Unchained { before: self.head.number, after: line.number });
        }
        let rewritten = |anchor: &&AuditHead| anchor.number == line.number && anchor.hash != line.hash;
        faults.extend(self.anchors.iter().find(rewritten).map(|_| Fault::Rewritten(line.number)));
        if self.before.is_some() && line.reckon() == line.hash && Checkpoint::of(line) == self.before {
            self.archived = true;
        }
        self.head = line.head();
        faults
    }

    /// The last of the lines before the first one, where a checkpoint was left for them.
    #[must_use]
    pub fn archived(&self) -> Option<AuditHead> {
        self.before.filter(|_| self.archived)
    }

    /// Ends after the last line: where the log ends, and what was expected after it.
    #[must_use]
    pub fn finish(self) -> (AuditHead, Vec<Fault>) {
        let end = self.head.number;
        let mut faults = Vec::new();
        if let Some(before) = self.before {
            let archived = self.anchors.iter().map(|anchor| anchor.number);
            let archived = archived.filter(|number| (1..=before.number).contains(number));
            faults.extend(archived.max().map(Fault::Archived));
            if !self.archived {
                faults.push(Fault::Missing { first: 1, last: before.number });
            }
        }
        let beyond = self.anchors.iter().filter(|anchor| anchor.number > end).map(|anchor| anchor.number);
        faults.extend(beyond.max().map(|anchor| Fault::CutOff { end, anchor }));
        (self.head, faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: i64) -> Vec<AuditLine> {
        let mut head = AuditHead::default();
        (1..=lines)
            .map(|number| {
                let detail = format!("{{\"serial\":\"{number:02x}\"}}");
                let (actor, action) = ("command line of root".to_owned(), "certificate.revoke");
                let line = AuditLine::follow(head, UnixTime(1_000 + number), actor, action, detail);
                head = line.head();
                line
            })
            .collect()
    }

    fn faults(lines: &[AuditLine], anchors: Vec<AuditHead>) -> Vec<Fault> {
        let mut verifier = Verifier::with_anchors(anchors);
        let mut faults: Vec<Fault> = lines.iter().flat_map(|line| verifier.read(line)).collect();
        faults.extend(verifier.finish().1);
        faults
    }

    #[test]
    fn an_untouched_log_has_no_fault_and_keeps_every_anchor_it_ever_gave() {
        let lines = log(20);
        let anchors = lines.iter().map(AuditLine::head).collect();
        assert_eq!(faults(&lines, anchors), []);
        assert_eq!(faults(&[], vec![AuditHead::default()]), []);
    }

    /// The hash is a format on disk: a change to it would break every log there is.
    #[test]
    fn the_hash_of_a_line_never_changes_between_versions() {
        let line = AuditLine::follow(AuditHead::default(), UnixTime(5), "a".into(), "b.c", "{}".into());
        assert_eq!(line.hash.to_string(), GOLDEN);
    }
    const GOLDEN: &str = "a9489de6a7ecdeb3629fb8fc51a00ff5030d3e8f20f087acbaf15800db97075b";

    #[test]
    fn a_change_to_any_part_of_a_line_is_found_at_that_line() {
        type Alter = fn(&mut AuditLine);
        let alterations: [Alter; 6] = [
            |line| line.time.0 += 1,
            |line| line.actor.push('x'),
            |line| line.action.push('x'),
            |line| line.detail.push(' '),
            |line| line.previous.0[31] ^= 1,
            |line| std::mem::swap(&mut line.actor, &mut line.action),
        ];
        for alter in alterations {
            for at in [0, 4, 9] {
                let mut lines = log(10);
                alter(&mut lines[at]);
                assert_eq!(faults(&lines, vec![]), [Fault::Changed(at as i64 + 1)]);
            }
        }
    }

    #[test]
    fn removed_lines_are_named() {
        let mut lines = log(10);
        lines.drain(3..6);
        assert_eq!(faults(&lines, vec![]), [Fault::Missing { first: 4, last: 6 }]);
        let mut lines = log(10);
        lines.remove(0);
        assert_eq!(faults(&lines, vec![]), [Fault::Missing { first: 1, last: 1 }]);
    }

    #[test]
    fn lines_that_changed_places_are_found_with_and_without_their_numbers() {
        let mut lines = log(6);
        lines.swap(2, 3);
        assert_eq!(faults(&lines, vec![])[0], Fault::Missing { first: 3, last: 3 });
        assert!(faults(&lines, vec![]).contains(&Fault::OutOfOrder(3)));
        // The forger gives the two each other's numbers.
        let mut lines = log(6);
        lines.swap(2, 3);
        (lines[2].number, lines[3].number) = (3, 4);
        assert_eq!(
            faults(&lines, vec![]),
            [Fault::Changed(3), Fault::Changed(4), Fault::Unchained { before: 4, after: 5 }]
        );
    }

    #[test]
    fn a_line_replaced_together_with_its_hash_is_found_by_the_one_after() {
        let mut lines = log(6);
        let forged = lines[1].head();
        let (actor, action) = ("nobody".to_owned(), "certificate.revoke");
        lines[2] = AuditLine::follow(forged, UnixTime(1_003), actor, action, "{}".to_owned());
        assert_eq!(faults(&lines, vec![]), [Fault::Unchained { before: 3, after: 4 }]);
        // A removed line hidden by numbering the rest anew breaks the first of the rest.
        let mut lines = log(6);
        lines.remove(2);
        for (number, line) in (1..).zip(&mut lines) {
            line.number = number;
            line.hash = line.reckon();
        }
        assert_eq!(faults(&lines, vec![])[0], Fault::Unchained { before: 2, after: 3 });
    }

    #[test]
    fn an_end_cut_off_and_a_log_written_anew_are_found_by_an_anchor_only() {
        let lines = log(10);
        let anchor = lines[9].head();
        assert_eq!(faults(&lines[..7], vec![]), []);
        assert_eq!(faults(&lines[..7], vec![anchor]), [Fault::CutOff { end: 7, anchor: 10 }]);
        let mut forged = log(10);
        let mut head = AuditHead::default();
        for line in &mut forged {
            *line = AuditLine::follow(head, line.time, "nobody".into(), &line.action, line.detail.clone());
            head = line.head();
        }
        assert_eq!(faults(&forged, vec![]), []);
        assert_eq!(faults(&forged, vec![anchor]), [Fault::Rewritten(10)]);
    }

    #[test]
    fn lines_that_were_archived_are_missing_without_exactly_their_checkpoint() {
        let with_checkpoint = |removed: usize, through: AuditHead| {
            let mut lines = log(10);
            let detail = serde_json::json!({ "through": through.to_string() }).to_string();
            let last = lines[9].head();
            lines.push(AuditLine::follow(last, UnixTime(9_000), "root".into(), Checkpoint::ACTION, detail));
            lines.drain(..removed);
            lines
        };
        let heads: Vec<AuditHead> = log(10).iter().map(AuditLine::head).collect();
        let kept = with_checkpoint(4, heads[3]);
        assert_eq!(faults(&kept, vec![heads[4], heads[9]]), []);
        assert_eq!(faults(&kept, vec![heads[2]]), [Fault::Archived(3)]);
        // One line more went than the checkpoint says, or one of another name.
        let missing = |last| [Fault::Missing { first: 1, last }];
        assert_eq!(faults(&with_checkpoint(5, heads[3]), vec![]), missing(5));
        let forged = AuditHead { number: 4, hash: Digest::ZERO };
        assert_eq!(faults(&with_checkpoint(4, forged), vec![]), missing(4));
        // A gap further on is none of its business.
        let mut gap = kept.clone();
        gap.remove(2);
        assert_eq!(faults(&gap, vec![]), [Fault::Missing { first: 7, last: 7 }]);
        // With all of it there, no checkpoint is needed.
        assert_eq!(faults(&with_checkpoint(0, heads[3]), heads.clone()), []);
        // A checkpoint that was changed is none.
        let mut changed = with_checkpoint(4, heads[3]);
        changed.last_mut().unwrap().actor.push('x');
        assert_eq!(faults(&changed, vec![]), [Fault::Changed(11), Fault::Missing { first: 1, last: 4 }]);
    }

    #[test]
    fn an_anchor_reads_as_it_prints() {
        let anchor = log(3)[2].head();
        assert_eq!(anchor.to_string().parse(), Ok(anchor));
        for text in
            ["", "3", "3:", "x:00", &format!("3:{}", "0".repeat(63)), &format!("3:{}", "g".repeat(64))]
        {
            assert!(text.parse::<AuditHead>().is_err(), "{text}");
        }
    }
}
