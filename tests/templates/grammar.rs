//! Templates of a seed: statements in expressions in statements, most of them well formed, many of them greedy.

use crate::fuzz::Random;

/// Of any value.
const ANY: &[&str] =
    &["bool", "default(EXPR)", "escape", "pprint", "safe", "string", "tojson", "tojson(indent=4)", "list"];
/// Of text.
const TEXT: &[&str] = &[
    "capitalize",
    "count",
    "first",
    "format(EXPR)",
    "indent(NUMBER)",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "replace('x', EXPR|string)",
    "replace('', 'xy')",
    "reverse",
    "split",
    "title",
    "trim",
    "unique|list",
    "upper",
];
/// Of a list.
const LIST: &[&str] = &[
    "batch(NUMBER)|list",
    "first",
    "join",
    "join(EXPR|string)",
    "last",
    "length",
    "list",
    "map('string')|list",
    "map('upper')|list",
    "max",
    "min",
    "reject",
    "reverse|list",
    "select|list",
    "selectattr('a')|list",
    "slice(NUMBER)|list",
    "sort",
    "string",
    "sum",
    "unique|list",
    "zip([EXPR])|list",
    "groupby('a')",
    "dictsort",
];
const METHODS: &[&str] = &[
    "capitalize()",
    "count('x')",
    "endswith('x')",
    "find('x')",
    "format(EXPR)",
    "lower()",
    "lstrip()",
    "isdigit()",
    "replace('x', EXPR|string)",
    "rstrip('x')",
    "split('x')",
    "splitlines()",
    "startswith('x')",
    "strip()",
    "title()",
    "upper()",
    "join([EXPR|string])",
    "items()",
    "get('a')",
    "nothing()",
];
const BINARY: &[&str] = &["~", "==", "!=", "and", "or", "~", "in [1] +", "<", ">=", "+"];
const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "//", "%", "**"];
const NAMES: &[&str] =
    &["messages", "messages[0]", "messages[0].content", "ns", "ns.x", "ns.y", "a", "b", "loop", "m0"];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "8",
    "9",
    "-1",
    "7",
    "64",
    "1000",
    "99999",
    "10000000",
    "2000000000",
    "9223372036854775807",
    "1.5",
];
const STRINGS: &[&str] = &["''", "'x'", "'é\\n'", "'a b c'", "'{}'", "'\\u0000'"];
const FORMATS: &[&str] = &["'%d'", "'%.9f'", "'%2000000000d'", "'%s'", "'%.2000000000f'"];
/// What stands for a hole to be filled.
const HOLE: &str = "EXPR";
/// Steps of a template, so that its text stays short; what is repeated is not counted.
const STEPS: u32 = 12;

/// A template of this seed.
pub(crate) fn template(seed: u64) -> String {
    let mut grammar = Grammar { random: Random::of_seed(seed), steps: STEPS };
    let mut text = String::from("{% set ns = namespace(x='x', y=[1]) %}{% set a = 1 %}{% set b = [a, 'b'] %}");
    for index in 0..2 {
        text += &format!(
            "{{% macro m{index}(a, b=1) %}}{}{{{{ caller(1) if caller }}}}{{% endmacro %}}",
            grammar.statements(2)
        );
    }
    grammar.steps = STEPS;
    while grammar.steps > 0 {
        text += &grammar.statement(3);
    }
    grammar.spoiled(text)
}

struct Grammar {
    random: Random,
    steps: u32,
}

impl Grammar {
    fn pick(&mut self, from: &[&str]) -> String {
        from[self.random.below(from.len())].to_owned()
    }

    fn step(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0
    }

    fn filled(&mut self, form: String, depth: u32) -> String {
        let mut text = String::new();
        for (index, piece) in form.split(HOLE).enumerate() {
            if index > 0 {
                text += &self.expression(depth);
            }
            for (index, piece) in piece.split("NUMBER").enumerate() {
                if index > 0 {
                    text += &self.pick(NUMBERS);
                }
                text += piece;
            }
        }
        text
    }

    fn expression(&mut self, depth: u32) -> String {
        if depth == 0 || !self.step() {
            return self.atom();
        }
        let form = match self.random.below(20) {
            0..=2 => self.atom(),
            3..=5 => format!("(EXPR|string|{})", self.pick(TEXT)),
            6..=8 => format!("([EXPR, EXPR]|{})", self.pick(LIST)),
            9 => format!("(EXPR|{})", self.pick(ANY)),
            10 => {
                let filters = [TEXT, LIST][self.random.below(2)];
                format!("(EXPR|{})", self.pick(filters))
            }
            11 => format!("(EXPR|string).{}", self.pick(METHODS)),
            12 => format!("(EXPR {} EXPR)", self.pick(BINARY)),
            13 => format!("(NUMBER {} NUMBER)", self.pick(ARITHMETIC)),
            14 => {
                self.pick(&["[EXPR, EXPR]", "{'a': EXPR, 'b': EXPR}", "(EXPR|string)[NUMBER:NUMBER]", "{EXPR: EXPR}"])
            }
            15 => "(EXPR if EXPR else EXPR)".to_owned(),
            16 => "range(NUMBER)|list".to_owned(),
            17 => format!("m{}(EXPR)", self.random.below(2)),
            18 => self.pick(&[
                "raise_exception(EXPR)",
                "strftime_now('%Y' * NUMBER)",
                "dict(a=EXPR)",
                "namespace(a=EXPR)",
            ]),
            _ => return self.repeated(),
        };
        self.filled(form, depth - 1)
    }

    fn atom(&mut self) -> String {
        match self.random.below(8) {
            0..=2 => self.pick(NAMES),
            3 => self.pick(NUMBERS),
            4 | 5 => self.pick(STRINGS),
            6 => format!("({}|format({}))", self.pick(FORMATS), self.pick(&["1.5", "7"])),
            _ => format!("({} * {})", self.pick(&["'xy'", "[1]"]), self.pick(&["0", "3", "1000", "99999"])),
        }
    }

    /// One thing very often.
    fn repeated(&mut self) -> String {
        let times = [3, 10, 20, 40, 20_000][self.random.below(5)];
        let (open, close) = [
            ("not ", ""),
            ("-", ""),
            ("(", ")"),
            ("[", "]"),
            ("{'a': ", "}"),
            ("", "|string"),
            ("", ".x"),
            ("", " ~ 1"),
            ("1 if 1 else ", ""),
            ("", "[0]"),
            ("m0(", ")"),
            ("", " + 1"),
        ][self.random.below(12)];
        format!("({}{}{})", open.repeat(times), self.atom(), close.repeat(times))
    }

    fn statements(&mut self, depth: u32) -> String {
        (0..=self.random.below(3)).map(|_| self.statement(depth)).collect()
    }

    fn statement(&mut self, depth: u32) -> String {
        if depth == 0 || !self.step() {
            return format!("text {{{{ {} }}}}", self.atom());
        }
        let inner = depth - 1;
        let form = match self.random.below(20) {
            0..=3 => "{{ EXPR }}".to_owned(),
            4 => "{% set a = EXPR %}{% set b = [a, EXPR] %}".to_owned(),
            5 => "{% set ns.x = EXPR %}".to_owned(),
            6 => self.pick(&["{% set ns.x = ns %}", "{% set ns.y = [ns.y, ns.y] %}", "{% set ns.x = ns.x ~ ns.x %}"]),
            7 | 8 => self.growing(),
            9..=11 => {
                format!(
                    "{{% for a in [EXPR, EXPR] %}}{}{{% else %}}{}{{% endfor %}}",
                    self.statements(inner),
                    self.atom()
                )
            }
            12 => {
                format!("{{% for a in EXPR recursive %}}{}{{{{ loop(EXPR) }}}}{{% endfor %}}", self.statements(inner))
            }
            13 => format!(
                "{{% if EXPR %}}{}{{% elif EXPR %}}{}{{% endif %}}",
                self.statements(inner),
                self.statements(inner)
            ),
            14 => format!("{{% call(b) m{}(EXPR) %}}{}{{% endcall %}}", self.random.below(2), self.statements(inner)),
            15 => format!("{{% filter {} %}}{}{{% endfilter %}}", self.pick(TEXT), self.statements(inner)),
            16 => format!("{{% set b %}}{}{{% endset %}}", self.statements(inner)),
            17 => format!("{{% with a = EXPR %}}{}{{% endwith %}}", self.statements(inner)),
            18 => self.pick(&[
                "{% include 'chat_template' %}",
                "{% for c in range(NUMBER) %}{% if loop.index > 9 %}{% break %}{% endif %}{{ EXPR }}{% endfor %}",
                "{% for c in messages %}{{ loop.cycle(EXPR, EXPR) }}{% continue %}{% endfor %}",
                "{% generation %}{{ EXPR }}{% endgeneration %}",
                "{% do m0(EXPR) %}",
            ]),
            _ => self.nested(),
        };
        self.filled(form, inner)
    }

    /// A value that a loop makes larger.
    fn growing(&mut self) -> String {
        let rounds = [5, 20, 40, 1000, 99_999][self.random.below(5)];
        let step = self.pick(&[
            "ns.x ~ ns.x",
            "[ns.x]",
            "[ns.x, ns.x]",
            "{'a': ns.x}",
            "ns.x|tojson",
            "ns.x ~ 'x'",
            "ns.x|string|replace('x', 'xx')",
            "ns.x|list + ns.x|list",
            "namespace(x=ns.x)",
            "ns.x|string|indent(1000)",
        ]);
        format!(
            "{{% for i in range({rounds}) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ {} }}}}",
            self.pick(&["ns.x", "1", "ns.x|tojson", "ns.x|length", "ns.x|sort"])
        )
    }

    fn nested(&mut self) -> String {
        let times = [3, 10, 20, 5000][self.random.below(4)];
        let (open, close) = [
            ("{% if 1 %}", "{% endif %}"),
            ("{% for a in [1, 2] %}", "{% endfor %}"),
            ("{% set b %}", "{% endset %}"),
            ("{% filter upper %}", "{% endfilter %}"),
            ("{% if 1 %}{% elif 1 %}", "{% endif %}"),
            ("{{ 1 }}", ""),
            ("{#", "#}"),
        ][self.random.below(7)];
        open.repeat(times) + "x" + &close.repeat(times)
    }

    /// One in eight is not well formed.
    fn spoiled(&mut self, mut text: String) -> String {
        if self.random.below(8) == 0 {
            let positions: Vec<usize> = text.char_indices().map(|(index, _)| index).collect();
            let at = positions[self.random.below(positions.len())];
            match self.random.below(3) {
                0 => text.truncate(at),
                1 => text.insert_str(at, "%}"),
                _ => drop(text.remove(at)),
            }
        }
        text
    }
}
