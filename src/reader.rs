//! Reads a TOML table field by field and keeps every complaint, so that an operator sees all of
//! them at once, each with its line.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One complaint about a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All complaints about one text.
#[derive(Debug)]
pub(crate) struct Problems<'t> {
    text: &'t str,
    found: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: &Range<usize>, message: impl Into<String>) {
        let before = &self.text.as_bytes()[..at.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|octet| **octet == b'\n').count();
        self.found.push(Problem { line, message: message.into() });
    }

    pub(crate) fn into_found(mut self) -> Vec<Problem> {
        self.found.sort();
        self.found
    }
}

/// A table being read. Fields that nobody asked for are complaints when it is [`Section::finish`]ed.
pub(crate) struct Section<'d> {
    name: String,
    table: Option<&'d DeTable<'d>>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(crate) fn root(table: &'d Spanned<DeTable<'d>>) -> Self {
        Self { name: String::new(), table: Some(table.get_ref()), span: 0..0, known: Vec::new() }
    }

    /// Where this table begins.
    pub(crate) fn span(&self) -> &Range<usize> {
        &self.span
    }

    fn label(&self, field: &str) -> String {
        if self.name.is_empty() { field.to_owned() } else { format!("{}.{field}", self.name) }
    }

    fn value(&mut self, field: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.push(field);
        self.table?.get(field)
    }

    /// A sub-table; an absent one reads as empty.
    pub(crate) fn section(&mut self, field: &'static str, problems: &mut Problems<'_>) -> Self {
        let name = self.label(field);
        let mut section = Section { name, table: None, span: self.span.clone(), known: Vec::new() };
        if let Some(value) = self.value(field) {
            section.span = value.span();
            match value.get_ref().as_table() {
                Some(table) => section.table = Some(table),
                None => problems.add(&value.span(), format!("{} must be a table", section.name)),
            }
        }
        section
    }

    /// An array of tables.
    pub(crate) fn sections(&mut self, field: &'static str, problems: &mut Problems<'_>) -> Vec<Self> {
        let label = self.label(field);
        let Some(value) = self.value(field) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            problems.add(&value.span(), format!("{label} must be an array of tables: [[{label}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for each in array.iter() {
            match each.get_ref().as_table() {
                Some(table) => sections.push(Section {
                    name: label.clone(),
                    table: Some(table),
                    span: each.span(),
                    known: Vec::new(),
                }),
                None => {
                    problems.add(&each.span(), format!("{label} must be an array of tables: [[{label}]]"))
                }
            }
        }
        sections
    }

    /// A string, with where it stands.
    pub(crate) fn string(
        &mut self,
        field: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<(String, Range<usize>)> {
        let label = self.label(field);
        let value = self.value(field)?;
        match value.get_ref().as_str() {
            Some(text) => Some((text.to_owned(), value.span())),
            None => {
                problems.add(&value.span(), format!("{label} must be a string in quotes"));
                None
            }
        }
    }

    /// A string that must be there.
    pub(crate) fn required(
        &mut self,
        field: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<(String, Range<usize>)> {
        if self.table.is_none_or(|table| !table.contains_key(field)) {
            self.known.push(field);
            problems.add(&self.span, format!("{} is missing", self.label(field)));
            return None;
        }
        self.string(field, problems)
    }

    /// A string that reads as a `T`.
    pub(crate) fn parsed<T>(&mut self, field: &'static str, problems: &mut Problems<'_>) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let label = self.label(field);
        let (text, span) = self.string(field, problems)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                problems.add(&span, format!("{label}: {error}"));
                None
            }
        }
    }

    /// A span of time such as `7d` or `3d 12h`.
    pub(crate) fn duration(&mut self, field: &'static str, problems: &mut Problems<'_>) -> Option<Duration> {
        let label = self.label(field);
        let (text, span) = self.string(field, problems)?;
        match humantime::parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                problems
                    .add(&span, format!("{label}: {text:?} is no span of time such as \"3d12h\": {error}"));
                None
            }
        }
    }

    /// A list of strings that read as `T`s.
    pub(crate) fn list<T>(&mut self, field: &'static str, problems: &mut Problems<'_>) -> Option<Vec<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let label = self.label(field);
        let value = self.value(field)?;
        let Some(array) = value.get_ref().as_array() else {
            problems.add(&value.span(), format!("{label} must be a list of strings"));
            return None;
        };
        let mut items = Vec::new();
        for each in array.iter() {
            match each.get_ref().as_str().map(T::from_str) {
                Some(Ok(item)) => items.push(item),
                Some(Err(error)) => problems.add(&each.span(), format!("{label}: {error}")),
                None => problems.add(&each.span(), format!("{label} must be a list of strings")),
            }
        }
        // A list with a bad item is as good as none: one mistake, one complaint.
        (items.len() == array.len()).then_some(items)
    }

    /// A whole number within bounds.
    pub(crate) fn integer(
        &mut self,
        field: &'static str,
        bounds: Range<u64>,
        problems: &mut Problems<'_>,
    ) -> Option<u64> {
        let label = self.label(field);
        let value = self.value(field)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            problems.add(
                &value.span(),
                format!("{label} must be a whole number from {} to {}", bounds.start, bounds.end - 1),
            );
        }
        number
    }

    /// A number strictly above 0 and at most 1.
    pub(crate) fn fraction(&mut self, field: &'static str, problems: &mut Problems<'_>) -> Option<f64> {
        let label = self.label(field);
        let value = self.value(field)?;
        let number = float(value.get_ref()).filter(|number| *number > 0.0 && *number <= 1.0);
        if number.is_none() {
            problems.add(&value.span(), format!("{label} must be a number above 0 and at most 1"));
        }
        number
    }

    /// true or false.
    pub(crate) fn boolean(&mut self, field: &'static str, problems: &mut Problems<'_>) -> Option<bool> {
        let label = self.label(field);
        let value = self.value(field)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            problems.add(&value.span(), format!("{label} must be true or false"));
        }
        found
    }

    /// A number within bounds.
    pub(crate) fn number(
        &mut self,
        field: &'static str,
        bounds: RangeInclusive<f64>,
        problems: &mut Problems<'_>,
    ) -> Option<f64> {
        let label = self.label(field);
        let value = self.value(field)?;
        let number = float(value.get_ref()).filter(|number| bounds.contains(number));
        if number.is_none() {
            let (from, to) = (bounds.start(), bounds.end());
            problems.add(&value.span(), format!("{label} must be a number from {from} to {to}"));
        }
        number
    }

    /// A list of strings that must be there, and read as `T`s.
    pub(crate) fn required_list<T>(
        &mut self,
        field: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<Vec<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        if self.table.is_none_or(|table| !table.contains_key(field)) {
            self.known.push(field);
            problems.add(&self.span, format!("{} is missing", self.label(field)));
            return None;
        }
        self.list(field, problems)
    }

    /// Complains about every field that is not known.
    pub(crate) fn finish(self, problems: &mut Problems<'_>) {
        for (key, _) in self.table.into_iter().flatten() {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let place =
                    if self.name.is_empty() { "at the top".to_owned() } else { format!("in {}", self.name) };
                problems.add(
                    &key.span(),
                    format!("unknown field {:?} {place}; known are {}", key.get_ref(), self.known.join(", ")),
                );
            }
        }
    }
}

fn float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) => number.as_str().parse().ok(),
        _ => None,
    }
}
