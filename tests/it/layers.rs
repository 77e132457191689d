//! Imports run downward: the table of layers in ARCHITECTURE.md, held against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::site::root;

/// The layers from the bottom up, and the modules in each. A module may import from its own layer,
/// as long as no two import each other, and from those below.
const LAYERS: [(&str, &[&str]); 6] = [
    ("core", &["ocsp", "clock", "reader", "shutdown", "telemetry"]),
    ("resources", &["signer", "store", "shelf"]),
    ("engines", &["presign", "responder", "capacity", "limits"]),
    ("edges", &["server", "import", "checker"]),
    ("composition", &["app", "config"]),
    ("entry", &["cli"]),
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// Which top-level modules a top-level module names, and where.
type Imports = BTreeMap<String, BTreeSet<(String, String)>>;

#[test]
fn imports_run_downward_only() {
    let problems = problems(&imports_of(&root().join("src")));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_layer_check_sees_the_sources_it_is_meant_to_see() {
    let imports = imports_of(&root().join("src"));
    let names = |module: &str| imports[module].iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert!(names("store").contains(&"ocsp".to_owned()), "store is known to import ocsp: {imports:?}");
    assert!(names("ocsp").contains(&"clock".to_owned()), "ocsp is known to import clock: {imports:?}");
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    for source in [
        "use crate::server::Listener;",
        "use crate::{clock::UnixTime, server::{ocsp, health}};",
        "fn f() -> crate::server::Health { todo!() }",
        "pub use crate :: server as shop;",
        "use super::super::server::Listener;",
        "mod inner { use super::super::super::server::Listener; }",
        "#[cfg(test)] mod tests { #[test] fn t() { crate::server::start(); } }",
    ] {
        let found = problems(&imports_in("store", &["store", "sqlite"], "store/sqlite.rs", source));
        assert_eq!(found, ["src/store/sqlite.rs: store (resources) imports server (edges)"], "{source}");
    }
}

#[test]
fn a_downward_import_a_comment_and_a_string_are_no_upward_imports() {
    let source = r##"
        // use crate::server::Listener;
        /* crate::server /* nested */ crate::cli */
        use crate::clock::UnixTime;
        use super::sqlite::Rows; // a sibling
        mod inner { use super::super::super::ocsp::Serial; }
        const TEXT: &str = "use crate::server::Listener; \" crate::cli::run";
        const RAW: &str = r#"crate::server " crate::cli"#;
        const QUOTE: char = '"'; fn f<'a>(x: &'a str) -> &'a str { x }
        pub(crate) struct Crate;
    "##;
    let imports = imports_in("store", &["store", "sqlite"], "store/sqlite.rs", source);
    assert_eq!(problems(&imports), [""; 0]);
    let names: Vec<_> = imports["store"].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["clock", "ocsp"]);
}

#[test]
fn two_modules_of_one_layer_that_import_each_other_are_found() {
    let mut imports = imports_in("presign", &["presign"], "presign/mod.rs", "use crate::capacity::Guard;");
    imports.extend(imports_in("capacity", &["capacity"], "capacity/mod.rs", "use crate::presign::Lane;"));
    assert_eq!(problems(&imports), ["capacity and presign import each other"]);
}

#[test]
fn a_module_without_a_layer_is_found() {
    let imports = imports_in("helpers", &["helpers"], "helpers.rs", "use crate::clock::UnixTime;");
    assert_eq!(problems(&imports), ["src/helpers.rs: the module helpers has no layer in ARCHITECTURE.md"]);
}

fn problems(imports: &Imports) -> Vec<String> {
    let mut problems = BTreeSet::new();
    for (module, names) in imports {
        let Some(own) = layer(module) else {
            let file = names.first().map_or(module, |(_, file)| file);
            problems.insert(format!("src/{file}: the module {module} has no layer in ARCHITECTURE.md"));
            continue;
        };
        for (name, file) in names {
            // What is no layered module is an item of the crate root, such as a macro.
            let Some(other) = layer(name) else { continue };
            if other > own {
                let (own, other) = (LAYERS[own].0, LAYERS[other].0);
                problems.insert(format!("src/{file}: {module} ({own}) imports {name} ({other})"));
            } else if other == own && module < name && imported(imports, name, module) {
                problems.insert(format!("{module} and {name} import each other"));
            }
        }
    }
    problems.into_iter().collect()
}

fn imported(imports: &Imports, by: &str, module: &str) -> bool {
    imports.get(by).is_some_and(|names| names.iter().any(|(name, _)| name == module))
}

fn imports_of(src: &Path) -> Imports {
    let mut imports = Imports::new();
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(src).unwrap().to_str().unwrap().to_owned();
            // The two roots stand above everything.
            let Some(stem) = file.strip_suffix(".rs").filter(|stem| !["lib", "main"].contains(stem)) else {
                continue;
            };
            let modules: Vec<&str> = stem.trim_end_matches("/mod").split('/').collect();
            let source = fs::read_to_string(&path).unwrap();
            for (module, names) in imports_in(modules[0], &modules, &file, &source) {
                imports.entry(module).or_default().extend(names);
            }
        }
    }
    imports
}

/// The top-level modules that a source text names by `crate::` or a chain of `super::`.
fn imports_in(module: &str, path: &[&str], file: &str, source: &str) -> Imports {
    let tokens = tokens(source);
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut names = BTreeSet::new();
    // Inline modules around the token: the brace depth outside each.
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match word(at) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.pop_if(|outside| *outside == depth);
            }
            "mod" if word(at + 2) == "{" => inline.push(depth),
            "crate" | "super" if word(at + 1) == "::" && (at == 0 || word(at - 1) != "::") => {
                let mut up = usize::from(word(at) == "super");
                let mut next = at + 2;
                while word(next) == "super" && word(next + 1) == "::" {
                    up += 1;
                    next += 2;
                }
                if word(at) == "crate" || up == path.len() + inline.len() {
                    names.extend(heads(&tokens[next..]));
                }
            }
            _ => {}
        }
        at += 1;
    }
    names.remove(module);
    let names = names.into_iter().map(|name| (name, file.to_owned())).collect();
    Imports::from([(module.to_owned(), names)])
}

/// The first names of a path, or of every path of a `{…}` group.
fn heads(tokens: &[String]) -> Vec<String> {
    if tokens.first().is_none_or(|token| token != "{") {
        return tokens.first().cloned().into_iter().collect();
    }
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut expected = false;
    for token in tokens {
        match token.as_str() {
            "{" => {
                depth += 1;
                expected = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            "," => expected = depth == 1,
            name if expected => {
                heads.push(name.to_owned());
                expected = false;
            }
            _ => {}
        }
    }
    heads
}

/// Identifiers, `::`, braces and commas; comments, strings and characters are left out.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if "{},".contains(first) {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    tokens
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(rest.len() - inside.len() + length)
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Whether a `'` begins a character and no lifetime.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}
