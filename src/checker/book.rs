//! Findings, and the table made from them: one line a requirement.

use serde::Serialize;

use super::rules::{self, Rule};

/// How a line of the checklist was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// There was nothing to look at, or the responder may lawfully do otherwise.
    NotApplicable,
}

/// What one question showed of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was asked, for example `POST sha256`.
    pub question: String,
    /// How the requirement was met.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
}

/// A requirement and how it was met by the answers to all questions about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The line of the checklist.
    pub id: &'static str,
    /// The requirement.
    pub requirement: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Failed if any question showed that, else passed if any did.
    pub verdict: Verdict,
    /// What was seen, in short.
    pub seen: String,
    /// Every question.
    pub findings: Vec<Finding>,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Book(Vec<(Rule, Finding)>);

/// So many failed questions are named in a line; the others are counted.
const NAMED: usize = 3;

impl Book {
    /// Notes whether a rule holds.
    pub(super) fn hold(&mut self, rule: Rule, question: &str, holds: bool, seen: impl Into<String>) {
        self.note(rule, question, if holds { Verdict::Passed } else { Verdict::Failed }, seen);
    }

    /// Notes why a rule says nothing here.
    pub(super) fn skip(&mut self, rule: Rule, question: &str, why: impl Into<String>) {
        self.note(rule, question, Verdict::NotApplicable, why);
    }

    /// [`Book::hold`] for what was found to be in order or not in order, each with its text.
    pub(super) fn result(&mut self, rule: Rule, question: &str, result: Result<String, String>) {
        let holds = result.is_ok();
        self.hold(rule, question, holds, result.unwrap_or_else(|seen| seen));
    }

    fn note(&mut self, rule: Rule, question: &str, verdict: Verdict, seen: impl Into<String>) {
        self.0.push((rule, Finding { question: question.to_owned(), verdict, seen: seen.into() }));
    }

    /// Whether a question showed that a rule holds.
    pub(super) fn has_passed(&self, rule: Rule) -> bool {
        self.0.iter().any(|(noted, finding)| *noted == rule && finding.verdict == Verdict::Passed)
    }

    /// The table.
    pub(super) fn into_lines(self) -> Vec<Line> {
        let line = |rule: &Rule| {
            let of_rule = self.0.iter().filter(|(noted, _)| noted == rule);
            line(rule, of_rule.map(|(_, finding)| finding.clone()).collect())
        };
        rules::ALL.iter().map(line).collect()
    }
}

fn line(rule: &Rule, findings: Vec<Finding>) -> Line {
    let any = |verdict| findings.iter().any(|finding| finding.verdict == verdict);
    let verdict = [Verdict::Failed, Verdict::Passed].into_iter().find(|verdict| any(*verdict));
    let verdict = verdict.unwrap_or(Verdict::NotApplicable);
    let those: Vec<_> = findings.iter().filter(|finding| finding.verdict == verdict).collect();
    let seen = match (verdict, &those[..]) {
        (_, []) => "no answer to look at".to_owned(),
        (Verdict::Failed, those) => {
            let named = those.iter().take(NAMED).map(|each| format!("{}: {}", each.question, each.seen));
            let rest = those.len().saturating_sub(NAMED);
            let rest = (rest > 0).then(|| format!("and {rest} more"));
            named.chain(rest).collect::<Vec<_>>().join("; ")
        }
        (_, [first, rest @ ..]) if rest.iter().all(|each| each.seen == first.seen) => first.seen.clone(),
        (Verdict::NotApplicable, [first, ..]) => first.seen.clone(),
        (Verdict::Passed, those) => format!("{} questions", those.len()),
    };
    let Rule { id, requirement, source } = *rule;
    Line { id, requirement, source, verdict, seen, findings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fails_with_one_of_its_questions_and_names_it() {
        let mut book = Book::default();
        for at in 0..6 {
            book.hold(rules::PATHS, &format!("question {at}"), at < 2, "HTTP 301");
        }
        book.skip(rules::HEAD, "HEAD", "not implemented");
        book.hold(rules::DER, "GET", true, "100 octets");
        book.hold(rules::DER, "POST", true, "100 octets");
        let lines = book.into_lines();
        assert_eq!(lines.len(), rules::ALL.len());
        let seen = |rule: Rule| {
            let line = lines.iter().find(|line| line.requirement == rule.requirement).unwrap();
            (line.verdict, line.seen.as_str())
        };
        let failed = "question 2: HTTP 301; question 3: HTTP 301; question 4: HTTP 301; and 1 more";
        assert_eq!(seen(rules::PATHS), (Verdict::Failed, failed));
        assert_eq!(seen(rules::HEAD), (Verdict::NotApplicable, "not implemented"));
        assert_eq!(seen(rules::DER), (Verdict::Passed, "100 octets"));
        assert_eq!(seen(rules::GMT), (Verdict::NotApplicable, "no answer to look at"));
    }

    #[test]
    fn no_two_rules_share_their_text() {
        for (at, rule) in rules::ALL.iter().enumerate() {
            assert!(rules::ALL[..at].iter().all(|earlier| earlier.requirement != rule.requirement));
        }
    }
}
