//! The sites whose removal no test shows, with the reason: escapes.txt, held to what `cargo xtask soak` finds.

use super::sites::{Id, Site};

const TABLE: &str = include_str!("escapes.txt");

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Escape {
    pub(super) id: Id,
    pub(super) reason: &'static str,
}

pub(super) fn known() -> Result<Vec<Escape>, String> {
    parse(TABLE)
}

fn parse(text: &'static str) -> Result<Vec<Escape>, String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse_line(line).ok_or_else(|| format!("escapes.txt: not a row: {line}"))).collect()
}

fn parse_line(line: &'static str) -> Option<Escape> {
    let parts: Vec<&'static str> = line.splitn(5, " | ").collect();
    let [file, function, call, number, reason] = parts[..] else { return None };
    let number = number.parse().ok()?;
    let id = Id { file: file.into(), function: function.into(), call: call.into(), number };
    (!reason.is_empty()).then_some(Escape { id, reason })
}

/// Rows of which there is no site.
pub(super) fn without_site<'a>(escapes: &'a [Escape], sites: &[Site]) -> Vec<&'a Escape> {
    escapes.iter().filter(|escape| sites.iter().all(|site| site.id != escape.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sites;
    use super::*;
    use crate::tree;

    #[test]
    fn rows_are_read() {
        let row = "a.cu | f | __syncthreads | 2 | it is | implied";
        let escapes = parse(row).expect("a row");
        assert_eq!(escapes[0].id.to_string(), "a.cu | f | __syncthreads | 2");
        assert_eq!(escapes[0].reason, "it is | implied");
        assert!(parse("a.cu | f | __syncthreads | 2").unwrap_err().contains("not a row"));
        assert!(parse("a.cu | f | __syncthreads | two | why").is_err());
    }

    #[test]
    fn every_row_of_the_table_is_a_site_of_csrc() {
        let sites = sites::find_all(&tree::root().join("csrc")).expect("csrc");
        let escapes = known().expect("rows");
        assert_eq!(without_site(&escapes, &sites), Vec::<&Escape>::new());
        let other = parse("sample.cu | draw_token | __syncwarp | 9 | it is not there").expect("a row");
        assert_eq!(without_site(&other, &sites).len(), 1);
    }
}
