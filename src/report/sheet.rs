//! A table as data, and its three prints: aligned text, CSV, JSON.

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
            "text" => Ok(Format::Text),
            "csv" => Ok(Format::Csv),
            "json" => Ok(Format::Json),
            _ => Err(UnknownFormat),
        }
    }
}

/// Not a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the formats are text, csv, json")]
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

    fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Int(value) => value.to_string(),
            Cell::Real(value, decimals) => format!("{value:.decimals$}"),
            Cell::Missing => "-".into(),
        }
    }

    fn csv(&self) -> String {
        match self {
            Cell::Text(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
            Cell::Missing => String::new(),
            other => other.text(),
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

/// Prints tables, one after the other.
pub(super) fn print(sheets: &[Sheet], format: Format) -> String {
    match format {
        Format::Text => sheets.iter().map(Sheet::to_text).collect::<Vec<_>>().join("\n"),
        Format::Csv => sheets.iter().map(csv).collect::<Vec<_>>().join("\n"),
        Format::Json => json(sheets),
    }
}

fn csv(sheet: &Sheet) -> String {
    let header = sheet.columns.join(",");
    let rows = sheet.rows.iter().map(|row| row.iter().map(Cell::csv).collect::<Vec<_>>().join(","));
    std::iter::once(header).chain(rows).map(|line| line + "\n").collect()
}

fn json(sheets: &[Sheet]) -> String {
    let value = match sheets {
        [only] => only.to_json(),
        all => all.iter().map(|sheet| (sheet.name.to_owned(), sheet.to_json())).collect::<Map<_, _>>().into(),
    };
    format!("{value:#}\n")
}
