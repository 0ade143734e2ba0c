//! Templates that want all there is of something: stack, memory, time, output.

use std::time::{Duration, Instant};

use vitrum::text::ChatLimits;

use super::processes::Watch;
use super::{GOOD, GOOD_TEXT, renderer, user};

/// Machines are shared: what hangs takes longer than this.
const SLACK: Duration = Duration::from_secs(15);
/// Code and libraries of the process, which its limit does not count.
const CODE_MIB: u64 = 64;
/// Of this process, which holds a prompt or two.
const OWN_MIB_MAX: u64 = 512;

/// How a rendering may end.
enum End {
    /// With words of these in its error.
    Says(&'static [&'static str]),
    /// With a text of so many bytes.
    Bytes(usize),
    /// Somehow: it depends on how it was compiled, or on how fast the machine is.
    Any,
}

impl End {
    fn may_be_late(&self) -> bool {
        match self {
            Any => true,
            Says(words) => words.contains(&TIME[0]),
            Bytes(_) => false,
        }
    }

    fn check_text(&self, name: &str, text: &str) {
        match self {
            Any => assert!(text.len() <= ChatLimits::default().prompt_bytes, "{name}: {} bytes", text.len()),
            Bytes(bytes) => assert_eq!(text.len(), *bytes, "{name}"),
            Says(words) => panic!("{name}: {} bytes and not {words:?}", text.len()),
        }
    }

    fn check_error(&self, name: &str, said: &str) {
        assert!(said.starts_with("the model's chat template"), "{name}: {said}");
        assert!(said.len() < 5000, "{name}: {} bytes", said.len());
        match self {
            Any => {}
            Bytes(_) => panic!("{name}: {said}"),
            Says(words) => assert!(words.iter().any(|words| said.contains(words)), "{name}: {said}"),
        }
    }
}

use End::{Any, Bytes, Says};

const MEMORY: &[&str] = &["more than 512 MiB of memory, or nested too deeply"];
const TIME: &[&str] = &["took longer than 1 s"];
const OUTPUT: &[&str] = &["wrote more than 16777216 bytes"];
const FUEL: &[&str] = &["out of fuel", TIME[0]];
const NESTED: &[&str] = &["maximum recursion limits"];

/// A name for messages, the template, its end.
fn values_and_output() -> Vec<(&'static str, String, End)> {
    let namespace = |rest: &str| format!("{{% set ns = namespace() %}}{{% set ns.x = ns %}}{rest}");
    let nested = |rounds: usize, step: &str, rest: &str| {
        let head = "{% set ns = namespace(v=[]) %}";
        format!("{head}{{% for i in range({rounds}) %}}{{% set ns.v = {step} %}}{{% endfor %}}{rest}")
    };
    vec![
        ("a namespace in itself, printed", namespace("{{ ns }}"), Says(MEMORY)),
        ("a namespace in itself, as JSON", namespace("{{ ns|tojson }}"), Says(MEMORY)),
        ("a namespace in itself, for debugging", namespace("{{ ns|pprint }}"), Any),
        ("a namespace in itself, hashed", namespace("{{ {ns: 1} }}"), Says(MEMORY)),
        ("namespaces in themselves, sorted", namespace("{% set ns.y = [ns] %}{{ [ns, ns]|sort }}"), Says(MEMORY)),
        ("a list of itself, 40 times", nested(40, "[ns.v, ns.v]", "{{ ns.v }}"), Says(OUTPUT)),
        ("a list of itself, 40 times, joined", nested(40, "[ns.v, ns.v]", "{{ ns.v ~ 'x' }}"), Any),
        ("an object of itself, as JSON", nested(60, "{'a': ns.v, 'b': ns.v}", "{{ ns.v|tojson }}"), Any),
        ("lists in lists, let go", nested(90_000, "[ns.v]", "ok"), Any),
        ("lists in lists, printed", nested(90_000, "[ns.v]", "{{ ns.v }}"), Any),
        ("a list added to itself", nested(60, "[1] + ns.v + ns.v", "{{ ns.v|length }}"), Any),
        ("a doubled string", nested(60, "(ns.v or 'x') ~ (ns.v or 'x')", "{{ ns.v }}"), Says(MEMORY)),
        (
            "a string replaced by itself",
            nested(5, "((ns.v or 'x' * 999)|replace('x', ns.v or 'x' * 999))", ""),
            Says(MEMORY),
        ),
        ("precision", "{{ '%.2000000000f'|format(1.5) }}".into(), Says(&["makes the template engine fail", "512 MiB"])),
        ("a width", "{{ '%2000000000d'|format(1) }}".into(), Says(MEMORY)),
        ("an indent", "{{ 'x\ny'|indent(2000000000) }}".into(), Says(MEMORY)),
        ("a batch", "{{ [1]|batch(1000000000, 1)|list|length }}".into(), Says(MEMORY)),
        ("slices", "{{ [1]|slice(1000000000)|list }}".into(), Says(MEMORY)),
        ("a long string", "{{ 'x' * 10**9 }}".into(), Says(&["too large"])),
        ("a long range", "{{ range(100000000000)|list }}".into(), Says(&["too many elements"])),
        ("a long list", "{{ range(100000)|list * 100000 }}".into(), Any),
        ("a long list, sorted", "{{ (range(100000)|list * 1000)|sort|length }}".into(), Any),
        ("a long list, made unique", "{{ (range(100000)|list * 1000)|unique|length }}".into(), Any),
        ("a long list, joined", "{{ (['x' * 100000] * 100000)|join }}".into(), Says(MEMORY)),
        ("characters of a long string", "{{ ('a' * 10000000).split('')|length }}".into(), Says(MEMORY)),
        ("JSON with much space", "{{ ([1] * 10000000)|tojson(indent=16) }}".into(), Any),
        ("a long date", "{{ strftime_now('%Y' * 10000000) }}".into(), Says(OUTPUT)),
        (
            "a long cycle",
            "{% for a in range(99999) %}{{ loop.cycle('a' * 99999, 'b') }}{% endfor %}".into(),
            Says(OUTPUT),
        ),
        ("a long refusal", "{{ raise_exception('é' * 10000000) }}".into(), Says(&["ééé…"])),
    ]
}

fn time_and_depth() -> Vec<(&'static str, String, End)> {
    let many = |count: usize, before: &str, middle: &str, after: &str| {
        format!("{}{middle}{}", before.repeat(count), after.repeat(count))
    };
    let chain = |first: &str, step: &str, last: &str| format!("{{{{ {first}{}{last} }}}}", step.repeat(100_000));
    let macros = (0..100_000).map(|index| format!("{{% macro m{index}() %}}{{% endmacro %}}")).collect();
    vec![
        (
            "filters for ever",
            "{% for i in range(99999) %}{% set x = ('a' * 9999999)|upper %}{% endfor %}".into(),
            Says(TIME),
        ),
        (
            "sums for ever",
            "{% for i in range(99999) %}{{ (range(99999)|list * 99)|sum }}{% endfor %}".into(),
            Says(TIME),
        ),
        ("loops for ever", many(4, "{% for a in range(99999) %}", "", "{% endfor %}"), Says(FUEL)),
        (
            "a macro that calls itself",
            "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".into(),
            Says(&["recursion"]),
        ),
        (
            "a caller that calls itself",
            "{% macro m(f) %}{{ caller(f) }}{% endmacro %}{% macro r(f) %}{% call(g) m(f) %}{{ g(g) }}{% endcall %}\
             {% endmacro %}{{ r(r) }}"
                .into(),
            Says(&["recursion"]),
        ),
        ("a loop in itself", "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(), Says(&["recursion"])),
        ("a template that includes itself", "{% include 'chat_template' %}".into(), Says(&["include"])),
        ("a template that extends itself", "{% extends 'chat_template' %}".into(), Says(&["cycle"])),
        ("not", chain("", "not ", "1"), Says(MEMORY)),
        ("minus", chain("", "-", "1"), Says(MEMORY)),
        ("alternatives", chain("", "1 if 1 else ", "1"), Says(MEMORY)),
        ("parentheses", format!("{{{{ {} }}}}", many(100_000, "(", "1", ")")), Says(NESTED)),
        ("brackets", format!("{{{{ {} }}}}", many(100_000, "[", "", "]")), Says(NESTED)),
        ("conditions", many(100_000, "{% if 1 %}", "", "{% endif %}"), Says(NESTED)),
        ("loops", many(100_000, "{% for a in [1] %}", "", "{% endfor %}"), Says(NESTED)),
        ("other conditions", format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(100_000)), Says(MEMORY)),
        ("filters", chain("1", "|string", ""), Says(MEMORY)),
        ("attributes", chain("a", ".b", ""), Says(MEMORY)),
        ("calls", chain("a", "()", ""), Says(MEMORY)),
        ("sums", chain("1", " + 1", ""), Says(MEMORY)),
        ("powers", chain("1", " ** 1", ""), Says(MEMORY)),
        ("comments", "{#".repeat(100_000), Any),
        ("raw blocks", "{% raw %}".repeat(100_000), Any),
        ("expressions without ends", "{{".repeat(100_000), Says(NESTED)),
        ("very many macros", macros, Bytes(0)),
        ("the longest text that a model file may hold", "x".repeat(16 << 20), Bytes(16 << 20)),
        ("NULs", "\0".repeat(100_000), Bytes(100_000)),
        ("nothing", String::new(), Bytes(0)),
    ]
}

#[test]
fn hostile_values_end_in_a_sentence() {
    all_end(values_and_output());
}

#[test]
fn hostile_loops_and_depths_end_in_a_sentence() {
    all_end(time_and_depth());
}

fn all_end(cases: Vec<(&str, String, End)>) {
    let hurried = ChatLimits { deadline: Duration::from_secs(1), ..ChatLimits::default() };
    let watch = Watch::start(hurried.memory_bytes);
    // Where it is not the time that ends a rendering, how busy the machine is makes no difference.
    let patient = ChatLimits { deadline: Duration::from_secs(60), ..hurried };
    let good = renderer(GOOD, patient);
    for (name, template, end) in cases {
        let limits = if end.may_be_late() { hurried } else { patient };
        let renderer = renderer(&template, limits);
        // As a server does it: first its start, then a request.
        for round in 0..2 {
            let start = Instant::now();
            let result = match round {
                0 => renderer.prepare().map(|()| None),
                _ => renderer.render(&[user("hi")], true).map(Some),
            };
            let took = start.elapsed();
            assert!(took < limits.deadline + SLACK, "{name}: {took:?}");
            match result {
                Ok(None) => {}
                Ok(Some(text)) => end.check_text(name, &text),
                Err(error) => end.check_error(name, &error.to_string()),
            }
        }
        assert_eq!(good.render(&[user("hi")], true).expect(name), GOOD_TEXT, "after {name}");
    }
    let most = (hurried.memory_bytes >> 20) + CODE_MIB;
    assert!(watch.child_mib() <= most, "{} MiB", watch.child_mib());
    assert!(watch.own_mib() < OWN_MIB_MAX, "{} MiB", watch.own_mib());
}
