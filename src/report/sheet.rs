//! A table as data, and its three prints: aligned text, CSV, JSON. A [`Sheet`] has its rows in memory, a [`Listing`]
//! makes them while it is printed.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table as TextTable, presets};
use serde_json::{Map, Value};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Text,
    /// Comma-separated, one header line.
    Csv,
    /// A list of objects, or an object of such lists by table.
    Json,
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Format, UnknownFormat> {
        match word {
            "table" | "text" => Ok(Format::Text),
            "csv" => Ok(Format::Csv),
            "json" => Ok(Format::Json),
            _ => Err(UnknownFormat),
        }
    }
}

/// Not a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the formats are table (or text), csv, json")]
pub struct UnknownFormat;

/// A table.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Its name.
    pub name: &'static str,
    /// The columns' names, with units.
    pub columns: Vec<&'static str>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<Cell>>,
    /// What a reader has to know beside the numbers.
    pub notes: Vec<String>,
}

impl Sheet {
    /// The table as aligned text, its notes below it.
    pub fn to_text(&self) -> String {
        let mut table = TextTable::new();
        table.load_preset(presets::NOTHING).set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(Cell::text));
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if at == 0 { 0 } else { 1 }, 1));
            let is_text = |row: &Vec<Cell>| matches!(row.get(at), Some(Cell::Text(_)));
            if !self.rows.iter().any(is_text) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let notes: String = self.notes.iter().map(|note| format!("{note}\n")).collect();
        format!("{}\n{}\n{notes}", self.name, table.trim_fmt())
    }

    /// A list of rows, each an object with the columns' names.
    pub fn to_json(&self) -> Value {
        let row = |cells: &Vec<Cell>| -> Map<String, Value> {
            self.columns.iter().zip(cells).map(|(column, cell)| ((*column).to_owned(), cell.json())).collect()
        };
        self.rows.iter().map(row).map(Value::Object).collect()
    }
}

/// A table's cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A whole number.
    Int(u64),
    /// A number, and how many decimals of it are printed as text.
    Real(f64, usize),
    /// Not known.
    Missing,
}

impl Cell {
    /// A number, or [`Cell::Missing`].
    pub fn real(value: Option<f64>, decimals: usize) -> Cell {
        value.filter(|value| value.is_finite()).map_or(Cell::Missing, |value| Cell::Real(value, decimals))
    }

    /// A whole number, or [`Cell::Missing`].
    pub fn int(value: Option<u64>) -> Cell {
        value.map_or(Cell::Missing, Cell::Int)
    }

    /// As text for people: a control character would move the cursor, so it is spelled out.
    fn text(&self) -> String {
        match self {
            Cell::Text(text) if text.contains(char::is_control) => {
                let spelled = |character: char| match character.is_control() {
                    true => character.escape_default().to_string(),
                    false => character.to_string(),
                };
                text.chars().map(spelled).collect()
            }
            Cell::Text(text) => text.clone(),
            Cell::Int(value) => value.to_string(),
            Cell::Real(value, decimals) => format!("{value:.decimals$}"),
            Cell::Missing => "-".into(),
        }
    }

    fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Cell::Text(text) => {
                // A client's name for its request must not be a formula to whoever opens the table.
                let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
                let guard = if is_formula { "'" } else { "" };
                match text.contains([',', '"', '\n', '\r']) {
                    true => write!(out, "\"{guard}{}\"", text.replace('"', "\"\"")),
                    false => write!(out, "{guard}{text}"),
                }
            }
            Cell::Int(value) => write!(out, "{value}"),
            Cell::Real(value, decimals) => write!(out, "{value:.decimals$}"),
            Cell::Missing => Ok(()),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => text.clone().into(),
            Cell::Int(value) => (*value).into(),
            Cell::Real(value, _) => (*value).into(),
            Cell::Missing => Value::Null,
        }
    }
}

/// A table of so many rows that they are made while it is printed.
pub(super) struct Listing<'a> {
    pub(super) name: &'static str,
    pub(super) columns: Vec<&'static str>,
    /// Begins with the first row, each time.
    pub(super) rows: Box<dyn Fn() -> Rows<'a> + 'a>,
}

/// Rows of as many cells as there are columns.
pub(super) type Rows<'a> = Box<dyn Iterator<Item = Vec<Cell>> + 'a>;

/// What is printed.
pub(super) enum Printed<'a> {
    Sheet(Sheet),
    Listing(Listing<'a>),
}

/// Prints tables, one after the other; each is made when its turn comes.
pub(super) fn write<'a>(
    tables: impl ExactSizeIterator<Item = Printed<'a>>,
    format: Format,
    out: &mut impl Write,
) -> io::Result<()> {
    let is_one = tables.len() == 1;
    if format == Format::Json && !is_one {
        out.write_all(b"{")?;
    }
    for (at, table) in tables.enumerate() {
        match format {
            Format::Text | Format::Csv if at > 0 => out.write_all(b"\n")?,
            Format::Json if !is_one => {
                let name = match &table {
                    Printed::Sheet(sheet) => sheet.name,
                    Printed::Listing(listing) => listing.name,
                };
                write!(out, "{}\n  \"{name}\": ", if at > 0 { "," } else { "" })?;
            }
            _ => {}
        }
        match (format, table) {
            (Format::Text, Printed::Sheet(sheet)) => out.write_all(sheet.to_text().as_bytes())?,
            (Format::Text, Printed::Listing(listing)) => listing.write_text(out)?,
            (Format::Csv, Printed::Sheet(sheet)) => write_csv(&sheet.columns, sheet.rows.into_iter(), out)?,
            (Format::Csv, Printed::Listing(listing)) => write_csv(&listing.columns, (listing.rows)(), out)?,
            // No string of JSON holds a bare line feed.
            (Format::Json, Printed::Sheet(sheet)) if !is_one => {
                out.write_all(format!("{:#}", sheet.to_json()).replace('\n', "\n  ").as_bytes())?;
            }
            (Format::Json, Printed::Sheet(sheet)) => write!(out, "{:#}", sheet.to_json())?,
            (Format::Json, Printed::Listing(listing)) => listing.write_json(out)?,
        }
    }
    match format {
        Format::Json if !is_one => out.write_all(b"\n}\n"),
        Format::Json => out.write_all(b"\n"),
        Format::Text | Format::Csv => Ok(()),
    }
}

/// The same as text.
pub(super) fn print<'a>(tables: impl ExactSizeIterator<Item = Printed<'a>>, format: Format) -> String {
    let mut text = Vec::new();
    write(tables, format, &mut text).expect("memory takes all");
    String::from_utf8_lossy(&text).into_owned()
}

fn write_csv(columns: &[&str], rows: impl Iterator<Item = Vec<Cell>>, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", columns.join(","))?;
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            out.write_all(if at > 0 { b"," } else { b"" })?;
            cell.write_csv(out)?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

impl Listing<'_> {
    /// With its rows in memory.
    pub(super) fn into_sheet(self) -> Sheet {
        let rows = (self.rows)().collect();
        Sheet { name: self.name, columns: self.columns, rows, notes: Vec::new() }
    }

    /// One row to a line.
    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"[")?;
        for (at, row) in (self.rows)().enumerate() {
            out.write_all(if at > 0 { b",\n    {" } else { b"\n    {" })?;
            for (at, (column, cell)) in self.columns.iter().zip(&row).enumerate() {
                write!(out, "{}\"{column}\": {}", if at > 0 { ", " } else { "" }, cell.json())?;
            }
            out.write_all(b"}")?;
        }
        out.write_all(b"\n  ]")
    }

    /// Aligned: the rows are made twice, first for their widths.
    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let mut columns: Vec<(usize, bool)> = self.columns.iter().map(|name| (name.len(), false)).collect();
        for row in (self.rows)() {
            for ((width, is_text), cell) in columns.iter_mut().zip(&row) {
                *width = (*width).max(cell.text().chars().count());
                *is_text |= matches!(cell, Cell::Text(_));
            }
        }
        let line = |cells: Vec<String>| -> String {
            let padded = columns.iter().zip(cells).map(|((width, is_text), cell)| match is_text {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        writeln!(out, "{}\n{}", self.name, line(self.columns.iter().map(|name| (*name).to_owned()).collect()))?;
        (self.rows)().try_for_each(|row| writeln!(out, "{}", line(row.iter().map(Cell::text).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_of_csv_is_a_formula() {
        let csv = |text: &str| {
            let mut out = Vec::new();
            Cell::Text(text.into()).write_csv(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let table = [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("=HYPERLINK(\"a\",1)", "\"'=HYPERLINK(\"\"a\"\",1)\""),
            ("-a", "'-a"),
            ("\t=1", "'\t=1"),
            ("-1.5", "-1.5"),
            ("a=1", "a=1"),
            ("", ""),
        ];
        for (text, cell) in table {
            assert_eq!(csv(text), cell, "{text:?}");
        }
    }
}
