//! PEM (RFC 7468), read as a stream: bundles of any length, text between the blocks.

use std::io::{BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest line that is looked at; lines of base64 are 64 long, text may be longer.
const LINE_MAX: u64 = 64 * 1024;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its BEGIN, from 1.
    pub line: u64,
    /// What it says it is, for example `CERTIFICATE`.
    pub label: String,
    /// The octets in it, or why there are none.
    pub content: Result<Vec<u8>, PemError>,
}

/// Why a block cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The file ends, or another block begins, before the block's END.
    #[error("the block has no END line")]
    NoEnd,
    /// The END names another label.
    #[error("the block ends as {0:?}")]
    OtherEnd(String),
    /// Not base64.
    #[error("the block is not base64")]
    NotBase64,
    /// Longer than the reader was made for.
    #[error("the block is longer than {0} octets")]
    TooLong(usize),
}

/// The blocks of a PEM file.
#[derive(Debug)]
pub struct Blocks<R> {
    input: R,
    /// Octets of base64 that a block may have.
    block_max: usize,
    line: u64,
    octets: u64,
    /// A BEGIN that was met inside another block.
    begun: Option<(u64, String)>,
}

impl<R: BufRead> Blocks<R> {
    /// Reads from `input` blocks that hold at most `octets_max`.
    pub fn new(input: R, octets_max: usize) -> Self {
        Self { input, block_max: octets_max / 3 * 4 + 4, line: 0, octets: 0, begun: None }
    }

    /// How many octets of the input were read.
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// Reads a line without its end and surrounding space; false at the end of the input.
    fn read_line(&mut self, line: &mut Vec<u8>) -> std::io::Result<bool> {
        line.clear();
        let mut octets = self.input.by_ref().take(LINE_MAX).read_until(b'\n', line)? as u64;
        if octets == LINE_MAX && line.last() != Some(&b'\n') {
            octets += self.input.skip_until(b'\n')? as u64;
        }
        self.octets += octets;
        self.line += 1;
        let end = line.trim_ascii_end().len();
        line.truncate(end);
        Ok(octets > 0)
    }

    /// The next block; none at the end.
    ///
    /// # Errors
    /// What the input says.
    pub fn next_block(&mut self) -> std::io::Result<Option<Block>> {
        let mut line = Vec::new();
        let (begin, label) = loop {
            if let Some(begun) = self.begun.take() {
                break begun;
            }
            if !self.read_line(&mut line)? {
                return Ok(None);
            }
            if let Some(label) = boundary(&line, b"-----BEGIN ") {
                break (self.line, label);
            }
        };
        let mut text = Vec::new();
        let mut is_long = false;
        let content = loop {
            if !self.read_line(&mut line)? {
                break Err(PemError::NoEnd);
            }
            if let Some(other) = boundary(&line, b"-----BEGIN ") {
                self.begun = Some((self.line, other));
                break Err(PemError::NoEnd);
            }
            if let Some(end) = boundary(&line, b"-----END ") {
                break if end != label {
                    Err(PemError::OtherEnd(end))
                } else if is_long {
                    Err(PemError::TooLong(self.block_max / 4 * 3))
                } else {
                    STANDARD.decode(&text).map_err(|_| PemError::NotBase64)
                };
            }
            // RFC 1421 headers, as in encrypted keys, make a block that is no base64; that is right.
            is_long |= text.len() + line.len() > self.block_max;
            if !is_long {
                text.extend(line.iter().filter(|octet| !octet.is_ascii_whitespace()));
            }
        };
        Ok(Some(Block { line: begin, label, content }))
    }
}

/// The label of a BEGIN or END line.
fn boundary(line: &[u8], start: &[u8]) -> Option<String> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(text: &[u8]) -> Vec<Block> {
        let mut blocks = Blocks::new(text, 1_000);
        let mut found = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            found.push(block);
        }
        assert_eq!(blocks.octets(), text.len() as u64);
        found
    }

    #[test]
    fn blocks_are_found_between_text() {
        let found = blocks(
            b"subject=CN = x\r\n-----BEGIN CERTIFICATE-----\r\nAAEC\r\nAw==\r\n-----END CERTIFICATE-----\r\n\xff text\n\
              -----BEGIN PRIVATE KEY-----\nBAUG\n-----END PRIVATE KEY-----",
        );
        let expected = |line, label: &str, content: &[u8]| Block {
            line,
            label: label.to_owned(),
            content: Ok(content.to_vec()),
        };
        assert_eq!(
            found,
            [expected(2, "CERTIFICATE", &[0, 1, 2, 3]), expected(7, "PRIVATE KEY", &[4, 5, 6])]
        );
    }

    #[test]
    fn a_bad_block_does_not_hide_the_next_one() {
        let found = blocks(
            b"-----BEGIN A-----\nAAEC\n-----BEGIN B-----\n!!\n-----END B-----\n-----BEGIN C-----\nAAEC\n-----END D-----\n-----BEGIN E-----\n",
        );
        let errors: Vec<_> =
            found.iter().map(|block| (block.label.as_str(), block.content.clone().unwrap_err())).collect();
        assert_eq!(
            errors,
            [
                ("A", PemError::NoEnd),
                ("B", PemError::NotBase64),
                ("C", PemError::OtherEnd("D".to_owned())),
                ("E", PemError::NoEnd),
            ]
        );
    }

    #[test]
    fn a_block_that_is_too_long_is_passed_over() {
        let mut text = b"-----BEGIN A-----\n".to_vec();
        for _ in 0..200 {
            text.extend(b"AAECAwQFBgcICQoL\n");
        }
        text.extend(b"-----END A-----\n-----BEGIN B-----\nAAEC\n-----END B-----\n");
        let found = blocks(&text);
        assert!(matches!(found[0].content, Err(PemError::TooLong(_))));
        assert_eq!(found[1].content, Ok(vec![0, 1, 2]));
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5)) {
            let text: String = contents
                .iter()
                .map(|content| format!("-----BEGIN X-----\n{}\n-----END X-----\n", STANDARD.encode(content)))
                .collect();
            let found: Vec<_> = blocks(text.as_bytes()).into_iter().map(|block| block.content.unwrap()).collect();
            prop_assert_eq!(found, contents);
        }

        #[test]
        fn any_input_is_read_to_its_end(text in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'\n'), any::<u8>()], 0..300)) {
            blocks(&text);
        }
    }
}
