//! `docs/conformance.md`: each line of the checklist with the tests that show it, made from the tests'
//! own doc comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::site::root;

/// Lines that nothing shows yet, and why.
const OPEN: [(&str, &str); 0] = [];

const DOCUMENT: &str = "docs/conformance.md";

/// Every test's doc comment: file, name, text.
fn documented_tests(folder: &Path, found: &mut Vec<(String, String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            documented_tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(root()).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            found.extend(tests_in(&text).into_iter().map(|(name, doc)| (file.clone(), name, doc)));
        }
    }
}

fn tests_in(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut doc, mut is_test) = (String::new(), false);
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push_str(text);
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else {
            let signature = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let (true, Some(signature)) = (is_test, signature) {
                let name = signature.split(['(', '<']).next().unwrap();
                found.push((name.to_owned(), std::mem::take(&mut doc)));
            }
            doc.clear();
            is_test = false;
        }
    }
    found
}

/// The ids of checklist lines in a text.
fn ids(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric());
    let is_id = |word: &&str| {
        word.split_at_checked(1).is_some_and(|(letter, number)| {
            "CLNHBS".contains(letter)
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    words.filter(is_id).map(str::to_owned).collect()
}

/// The ids and requirements of the document's tables, in order.
fn checklist(document: &str) -> Vec<(String, String)> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        let (id, requirement) = (cells.next()?, cells.next()?);
        (ids(id).contains(id)).then(|| (id.to_owned(), requirement.to_owned()))
    })
    .collect()
}

/// The document with what shows each line written anew.
fn rewritten(document: &str, shown_by: &BTreeMap<String, Vec<String>>) -> String {
    let mut out = String::new();
    for line in document.lines() {
        match checklist(line).pop() {
            Some((id, requirement)) => {
                let tests = shown_by.get(&id).map(|tests| tests.join("<br>"));
                let open =
                    OPEN.iter().find(|(open, _)| *open == id).map(|(_, why)| format!("**open**: {why}"));
                let shown = tests.or(open).unwrap_or_else(|| "**nothing**".to_owned());
                out += &format!("| {id} | {requirement} | {shown} |\n");
            }
            None => out += &format!("{line}\n"),
        }
    }
    out
}

#[test]
fn every_line_of_the_checklist_is_shown_by_a_test_or_stands_open_with_its_reason() {
    let mut tests = Vec::new();
    for folder in ["src", "tests"] {
        documented_tests(&root().join(folder), &mut tests);
    }
    let mut shown_by: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, name, doc) in &tests {
        for id in ids(doc) {
            shown_by.entry(id).or_default().push(format!("`{file}`: {}", name.replace('_', " ")));
        }
    }
    let document = fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let lines: BTreeSet<String> = checklist(&document).into_iter().map(|(id, _)| id).collect();
    let open: BTreeSet<String> = OPEN.iter().map(|(id, _)| (*id).to_owned()).collect();
    let shown: BTreeSet<String> = shown_by.keys().cloned().collect();
    assert_eq!(lines.len(), 72, "the checklist has 72 lines: {lines:?}");
    let unknown: Vec<_> = shown.union(&open).filter(|id| !lines.contains(*id)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are on no line of {DOCUMENT}");
    let closed: Vec<_> = open.iter().filter(|id| shown.contains(*id)).collect();
    assert!(closed.is_empty(), "{closed:?} are shown by a test and no longer open");
    let missing: Vec<_> = lines.iter().filter(|id| !shown.contains(*id) && !open.contains(*id)).collect();
    assert!(missing.is_empty(), "no test names {missing:?} in its doc comment");
    let made = rewritten(&document, &shown_by);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(DOCUMENT), made).unwrap();
    } else {
        assert!(
            made == document,
            "{DOCUMENT} is not what the tests say: run `UPDATE=1 cargo test --test it conformance::table`"
        );
    }
}

#[test]
fn only_doc_comments_of_tests_count() {
    let source = "
        /// C1, B13: a test.
        #[test]
        fn one() {}
        /// C2.
        fn helper() {}
        // C3.
        #[test]
        fn two() {}
            /// H5.
            /// And more of it.
            #[tokio::test(flavor = \"multi_thread\")]
            async fn three() {}
            /// L1.
            #[test]
            fn four(input in any::<u8>()) {}
    ";
    let found: Vec<_> = tests_in(source).into_iter().map(|(name, doc)| (name, ids(&doc))).collect();
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    let expected =
        [("one", set(&["C1", "B13"])), ("two", set(&[])), ("three", set(&["H5"])), ("four", set(&["L1"]))];
    assert_eq!(found, expected.map(|(name, ids)| (name.to_owned(), ids)));
    assert_eq!(ids("RFC 6960, SHA1, X2, 7C1, C, H10."), set(&["H10"]));
}
