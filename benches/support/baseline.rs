//! The baseline of `benches/instructions.tsv`: a row a case, with the reason for its last change.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use goodstanding::clock::{Clock, SystemClock};

/// How far above the baseline a case may lie.
const GROWTH: f64 = 1.05;

const HEAD: &str = "# What one operation costs, as scripts/instructions counts it. A row changes only with
# scripts/instructions --accept 'why', in the commit that makes it necessary.
# case\tinstructions\tallocations\tsince\treason\n";

/// What one operation of a case costs.
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) instructions: u64,
    pub(crate) allocations: u32,
}

/// A row of the baseline.
struct Row {
    name: String,
    instructions: u64,
    allocations: u32,
    since: String,
    reason: String,
}

impl Row {
    fn read(line: &str) -> Self {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, instructions, allocations, since, reason] = fields[..] else {
            panic!("benches/instructions.tsv: five fields are wanted in {line:?}");
        };
        assert!(!reason.trim().is_empty(), "benches/instructions.tsv: {name} has no reason");
        Self {
            name: name.to_owned(),
            instructions: instructions.parse().expect("a number of instructions"),
            allocations: allocations.parse().expect("a number of allocations"),
            since: since.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.tsv")
}

/// The tools that decide what is counted, and the rows.
fn read() -> (String, Vec<Row>) {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let tools = text.lines().find_map(|line| line.strip_prefix(MADE_WITH)).unwrap_or_default();
    let rows = text.lines().filter(|line| !line.starts_with('#')).map(Row::read).collect();
    (tools.to_owned(), rows)
}

const MADE_WITH: &str = "# made with: ";

/// The tools on this machine.
fn tools() -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    [
        std::env::consts::ARCH.to_owned(),
        first_line(&rustc, &["--version"]),
        first_line("getconf", &["GNU_LIBC_VERSION"]),
        first_line("valgrind", &["--version"]),
    ]
    .join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn ratio(now: u64, before: u64) -> f64 {
    now as f64 / before as f64
}

/// Prints every cost beside its baseline. With `strict`, growth fails.
pub(crate) fn compare(costs: &[Cost], strict: bool) -> ExitCode {
    let (made_with, rows) = read();
    let tools = tools();
    let mut faults = Vec::new();
    println!("{:<40} {:>12} {:>9} {:>8} {:>12}", "case", "instructions", "baseline", "ratio", "allocations");
    for Cost { name, instructions, allocations } in costs {
        let Some(row) = rows.iter().find(|row| row.name == *name) else {
            println!("{name:<40} {instructions:>12} {:>9} {:>8} {allocations:>12}", "none", "");
            faults.push(format!("{name} has no baseline"));
            continue;
        };
        let ratio = ratio(*instructions, row.instructions);
        println!("{name:<40} {instructions:>12} {:>9} {ratio:>8.3} {allocations:>12}", row.instructions);
        let history = format!("the baseline is of {}: {}", row.since, row.reason);
        if ratio > GROWTH {
            faults.push(format!(
                "{name}: {instructions} instructions, {} before ({history})",
                row.instructions
            ));
        } else if ratio < 2.0 - GROWTH {
            println!("  cheaper than its baseline: hold it with --accept");
        }
        if *allocations > row.allocations {
            faults.push(format!("{name}: {allocations} allocations, {} before ({history})", row.allocations));
        }
    }
    for row in rows.iter().filter(|row| costs.iter().all(|cost| cost.name != row.name)) {
        faults.push(format!("{} has a baseline and is no case", row.name));
    }
    if faults.is_empty() || !strict {
        return ExitCode::SUCCESS;
    }
    eprintln!("\nMore than the baseline allows:");
    faults.iter().for_each(|fault| eprintln!("  {fault}"));
    if tools != made_with {
        eprintln!("The tools differ: the baseline was made with {made_with}; here are {tools}.");
    }
    eprintln!(
        "If it has to be so, commit with the change what this writes: scripts/instructions --accept 'why'"
    );
    if std::env::consts::ARCH != "x86_64" {
        eprintln!("The baseline is one of x86_64, so it decides nothing on this machine.");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// Writes a new baseline: `reason` stands beside every case that changed.
pub(crate) fn accept(costs: &[Cost], reason: &str) -> ExitCode {
    if reason.trim().is_empty() || reason.contains(['\t', '\n']) {
        eprintln!(
            "--accept takes the reason, in one line: scripts/instructions --accept 'why it costs more'"
        );
        return ExitCode::FAILURE;
    }
    let (made_with, rows) = read();
    let tools = tools();
    let now = SystemClock.now().to_string();
    let today = now.split('T').next().unwrap_or_default();
    let mut text = format!("{HEAD}{MADE_WITH}{tools}\n");
    for Cost { name, instructions, allocations } in costs {
        // What only wavers keeps its number and its reason.
        let same = |row: &&Row| {
            let ratio = ratio(*instructions, row.instructions);
            row.name == *name
                && made_with == tools
                && row.allocations == *allocations
                && (2.0 - GROWTH..=GROWTH).contains(&ratio)
        };
        let line = match rows.iter().find(same) {
            Some(Row { name, instructions, allocations, since, reason }) => {
                writeln!(text, "{name}\t{instructions}\t{allocations}\t{since}\t{reason}")
            }
            None => writeln!(text, "{name}\t{instructions}\t{allocations}\t{today}\t{reason}"),
        };
        line.expect("a String takes everything");
    }
    std::fs::write(file(), text).expect("the baseline is written");
    println!("{} is written; commit it with the change", file().display());
    ExitCode::SUCCESS
}
