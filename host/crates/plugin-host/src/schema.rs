//! JSON Schemas that strangers wrote, made safe to compile and to apply.
//!
//! The validator follows every `$ref` anew wherever it meets it, so a schema of a kilobyte can ask for more steps than
//! there is time. Here the steps are counted before it is compiled, as the most that can look at one value; what
//! exceeds the budget is refused at installation. Patterns run on an engine whose time grows with the text
//! alone. When a schema is applied, its cost times the size of the value has a limit too.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use std::collections::HashMap;

/// A schema's text, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Schemas that look at one value, counted with every `$ref` followed.
const STEPS_AT_ONE_VALUE_MAX: u64 = 500;
/// Schemas within one another on one way through it, as the stack sees it.
const NESTING_MAX: u64 = 600;
/// How deep a value may be nested.
const VALUE_DEPTH_MAX: usize = 64;
/// Steps of one application: those of the schema at one value, times the values.
const APPLICATION_STEPS_MAX: u64 = 2_000_000;
/// Beyond so many steps, only the first violation is looked for.
const ALL_VIOLATIONS_STEPS_MAX: u64 = 50_000;
/// So many take no longer than [`crate::AT_ONCE`].
const AT_ONCE_STEPS_MAX: u64 = 10_000;
/// A text counts as one value for each so many bytes.
const TEXT_BYTES_PER_STEP: usize = 64;
/// Patterns of one schema, characters of one, and bytes that one compiles to.
const PATTERNS_MAX: usize = 32;
const PATTERN_CHARS_MAX: usize = 512;
const PATTERN_BYTES_MAX: usize = 128 << 10;
/// What looking for a pattern may keep in memory, in bytes.
const PATTERN_CACHE_BYTES_MAX: usize = 256 << 10;
/// The counting itself, in references followed.
const COUNTING_MAX: u64 = 1_000_000;
/// A violation's message, in bytes.
const MESSAGE_BYTES_MAX: usize = 300;
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Why a schema is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(String);

/// Where a value departs from a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaViolation {
    /// JSON Pointer into the value.
    pub pointer: String,
    pub message: String,
}

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    steps_at_one_value: u64,
}

impl Schema {
    /// Compiles a schema: JSON Schema 2020-12, an object, without references to other documents.
    ///
    /// # Errors
    /// What is wrong with it, or which limit it exceeds.
    pub fn compile(text: &str) -> Result<Self, SchemaError> {
        let refused = |why: String| Err(SchemaError(why));
        if text.len() > SCHEMA_BYTES_MAX {
            return refused(format!(
                "has {} bytes; a schema may have {SCHEMA_BYTES_MAX}",
                text.len()
            ));
        }
        let schema: Value = match serde_json::from_str(text) {
            Ok(schema @ Value::Object(_)) => schema,
            Ok(_) => return refused("must be a JSON object".into()),
            Err(e) => return refused(format!("is not JSON: {e}")),
        };
        let steps_at_one_value = Counting::new(&schema)?.steps()?;
        let built = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(PATTERN_BYTES_MAX)
                    .dfa_size_limit(PATTERN_CACHE_BYTES_MAX),
            )
            .build(&schema);
        match built {
            Ok(validator) => Ok(Self {
                validator,
                steps_at_one_value,
            }),
            Err(e) => refused(format!("is no JSON Schema: {}", cut(e.to_string()))),
        }
    }

    /// Whether looking at the value takes no longer than [`crate::AT_ONCE`].
    pub fn is_short_work(&self, value: &Value) -> bool {
        size_of(value, VALUE_DEPTH_MAX)
            .is_none_or(|size| size.saturating_mul(self.steps_at_one_value) <= AT_ONCE_STEPS_MAX)
    }

    /// Where a value departs from it, at most so many places. Up to tenths of a second of CPU: unless it
    /// [is short work](Self::is_short_work), call it away from the async threads.
    pub fn violations(&self, value: &Value, max: usize) -> Vec<SchemaViolation> {
        let whole = |message: String| {
            vec![SchemaViolation {
                pointer: String::new(),
                message,
            }]
        };
        let Some(size) = size_of(value, VALUE_DEPTH_MAX) else {
            return whole(format!("is nested more than {VALUE_DEPTH_MAX} deep"));
        };
        let steps = size.saturating_mul(self.steps_at_one_value);
        if steps > APPLICATION_STEPS_MAX {
            return whole("is too large for its schema: send less in one call".into());
        }
        let shown = |error: jsonschema::ValidationError<'_>| SchemaViolation {
            pointer: error.instance_path().to_string(),
            message: cut(error.to_string()),
        };
        if steps > ALL_VIOLATIONS_STEPS_MAX {
            let first = self.validator.validate(value).err();
            return first.map(shown).into_iter().collect();
        }
        let errors = self.validator.iter_errors(value);
        errors.take(max).map(shown).collect()
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    text
}

/// How many values it holds, long texts counted more than once; `None` where it is nested too deeply.
fn size_of(value: &Value, depth: usize) -> Option<u64> {
    let text = |text: &str| 1 + (text.len() / TEXT_BYTES_PER_STEP) as u64;
    let deeper = depth.checked_sub(1);
    match value {
        Value::String(s) => Some(text(s)),
        Value::Array(items) => items
            .iter()
            .try_fold(1, |sum, item| Some(sum + size_of(item, deeper?)?)),
        Value::Object(members) => members.iter().try_fold(1, |sum, (name, member)| {
            Some(sum + text(name) + size_of(member, deeper?)?)
        }),
        _ => Some(1),
    }
}

/// Which values within a value a subschema looks at.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place<'a> {
    Member(&'a str),
    AnyMember,
    Item(usize),
    AnyItem,
}

/// One subschema.
#[derive(Default)]
struct Node<'a> {
    /// Subschemas that look at the same value, references among them.
    here: Vec<usize>,
    /// Those that look at values within it.
    within: Vec<(Place<'a>, usize)>,
}

/// Every subschema that can be reached, and how they lead to each other.
struct Counting<'a> {
    root: &'a Value,
    nodes: Vec<Node<'a>>,
    index: HashMap<*const Value, usize>,
    patterns: usize,
}

/// How many schemas look at one value, and how deep they lie within one another.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    steps: u64,
    nesting: u64,
}

/// All that looks at one value, once a schema looks at it.
struct Closure<'a> {
    cost: Cost,
    within: HashMap<Place<'a>, Vec<usize>>,
}

impl<'a> Counting<'a> {
    fn new(root: &'a Value) -> Result<Self, SchemaError> {
        let mut counting = Self {
            root,
            nodes: Vec::new(),
            index: HashMap::new(),
            patterns: 0,
        };
        let mut found = vec![root];
        counting.index.insert(root, 0);
        counting.nodes.push(Node::default());
        while let Some(schema) = found.pop() {
            let at = counting.index[&std::ptr::from_ref(schema)];
            let node = counting.read(schema, &mut found)?;
            counting.nodes[at] = node;
        }
        Ok(counting)
    }

    /// The subschemas of one schema; those that are new are put on the pile.
    fn read(
        &mut self,
        schema: &'a Value,
        found: &mut Vec<&'a Value>,
    ) -> Result<Node<'a>, SchemaError> {
        let mut node = Node::default();
        let Value::Object(keywords) = schema else {
            return Ok(node);
        };
        for (keyword, value) in keywords {
            let is_root = std::ptr::eq(schema, self.root);
            match keyword.as_str() {
                "$ref" => {
                    let target = self.target(value)?;
                    node.here.push(self.index_of(target, found));
                }
                "$dynamicRef" | "$recursiveRef" => {
                    return Err(SchemaError(format!(
                        "uses `{keyword}`, which is not supported; use `$ref`"
                    )));
                }
                "$id" | "id" if !is_root && value.is_string() => {
                    return Err(SchemaError(
                        "holds a schema with an id of its own, which is not supported".into(),
                    ));
                }
                "$schema" if value.as_str().map(|s| s.trim_end_matches('#')) != Some(DIALECT) => {
                    return Err(SchemaError(format!(
                        "is of another dialect; `$schema` must be {DIALECT}, or left out"
                    )));
                }
                "allOf" | "anyOf" | "oneOf" => {
                    for part in value.as_array().into_iter().flatten() {
                        node.here.push(self.index_of(part, found));
                    }
                }
                "not" | "if" | "then" | "else" => node.here.push(self.index_of(value, found)),
                "dependentSchemas" | "dependencies" => {
                    for part in value.as_object().into_iter().flat_map(|o| o.values()) {
                        node.here.push(self.index_of(part, found));
                    }
                }
                "properties" => {
                    for (name, part) in value.as_object().into_iter().flatten() {
                        let part = self.index_of(part, found);
                        node.within.push((Place::Member(name), part));
                    }
                }
                "patternProperties" => {
                    for (pattern, part) in value.as_object().into_iter().flatten() {
                        self.pattern(pattern)?;
                        let part = self.index_of(part, found);
                        node.within.push((Place::AnyMember, part));
                    }
                }
                "additionalProperties" | "unevaluatedProperties" | "propertyNames" => {
                    let part = self.index_of(value, found);
                    node.within.push((Place::AnyMember, part));
                }
                "prefixItems" => {
                    for (at, part) in value.as_array().into_iter().flatten().enumerate() {
                        let part = self.index_of(part, found);
                        node.within.push((Place::Item(at), part));
                    }
                }
                "items" | "additionalItems" | "contains" | "unevaluatedItems" => {
                    let part = self.index_of(value, found);
                    node.within.push((Place::AnyItem, part));
                }
                "pattern" => self.pattern(value.as_str().unwrap_or_default())?,
                _ => {}
            }
        }
        Ok(node)
    }

    fn index_of(&mut self, schema: &'a Value, found: &mut Vec<&'a Value>) -> usize {
        *self.index.entry(schema).or_insert_with(|| {
            found.push(schema);
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        })
    }

    fn target(&self, reference: &Value) -> Result<&'a Value, SchemaError> {
        let text = reference.as_str().unwrap_or_default();
        let pointer = text.strip_prefix('#').filter(|p| !p.contains('%'));
        pointer
            .and_then(|pointer| self.root.pointer(pointer))
            .ok_or_else(|| {
                SchemaError(format!(
                    "refers to `{}`, which is no place in this schema; `$ref` must read `#/$defs/name`",
                    cut(text.to_owned())
                ))
            })
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), SchemaError> {
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            return Err(SchemaError(format!(
                "has more than {PATTERNS_MAX} patterns"
            )));
        }
        if pattern.chars().count() > PATTERN_CHARS_MAX {
            return Err(SchemaError(format!(
                "has a pattern of more than {PATTERN_CHARS_MAX} characters"
            )));
        }
        Ok(())
    }

    /// The most schemas that look at one value, wherever it stands, where every limit is kept.
    fn steps(&self) -> Result<u64, SchemaError> {
        let mut work = 0;
        let closures: Vec<_> = (0..self.nodes.len())
            .map(|node| self.closure(node, &mut work))
            .collect::<Result<_, _>>()?;
        // Of a value that is nested so deep: how many schemas look at it, or at any one value in it.
        let mut costs: Vec<Cost> = closures.iter().map(|closure| closure.cost).collect();
        for _ in 0..VALUE_DEPTH_MAX {
            let deeper: Vec<_> = closures
                .iter()
                .map(|closure| closure.around(&costs, &mut work))
                .collect();
            let is_settled = deeper == costs;
            costs = deeper;
            costs[0].within_limits()?;
            within_counting(work)?;
            if is_settled {
                break;
            }
        }
        Ok(costs[0].steps)
    }

    /// Everything that looks at a value together with this schema.
    fn closure(&self, node: usize, work: &mut u64) -> Result<Closure<'a>, SchemaError> {
        let mut closure = Closure {
            cost: Cost::default(),
            within: HashMap::new(),
        };
        let mut path = Vec::new();
        self.collect(node, &mut path, &mut closure, work)?;
        Ok(closure)
    }

    fn collect(
        &self,
        node: usize,
        path: &mut Vec<usize>,
        closure: &mut Closure<'a>,
        work: &mut u64,
    ) -> Result<(), SchemaError> {
        if path.contains(&node) {
            return Err(SchemaError(
                "refers to itself for the same value, without an end".into(),
            ));
        }
        path.push(node);
        closure.cost.steps += 1;
        closure.cost.nesting = closure.cost.nesting.max(path.len() as u64);
        *work += 1;
        closure.cost.within_limits()?;
        within_counting(*work)?;
        for (place, part) in &self.nodes[node].within {
            *work += 1;
            closure.within.entry(*place).or_default().push(*part);
        }
        for part in &self.nodes[node].here {
            self.collect(*part, path, closure, work)?;
        }
        path.pop();
        Ok(())
    }
}

impl Cost {
    fn within_limits(self) -> Result<(), SchemaError> {
        if self.steps > STEPS_AT_ONE_VALUE_MAX {
            return Err(SchemaError(format!(
                "takes more than {STEPS_AT_ONE_VALUE_MAX} steps for one value, with every `$ref` followed; use fewer alternatives, and let a recursive schema refer to itself once"
            )));
        }
        if self.nesting > NESTING_MAX {
            return Err(SchemaError(format!(
                "nests more than {NESTING_MAX} schemas in one another, with every `$ref` followed"
            )));
        }
        Ok(())
    }
}

impl Closure<'_> {
    /// The cost with that of the values within, of which the one counts that costs most.
    fn around(&self, costs: &[Cost], work: &mut u64) -> Cost {
        let mut cost_of = |parts: Option<&Vec<usize>>| {
            let parts = parts.map(Vec::as_slice).unwrap_or_default();
            *work += parts.len() as u64;
            let all = parts.iter().map(|part| costs[*part]);
            all.fold(Cost::default(), together)
        };
        let any_member = cost_of(self.within.get(&Place::AnyMember));
        let any_item = cost_of(self.within.get(&Place::AnyItem));
        let mut most = costlier(any_member, any_item);
        for (place, parts) in &self.within {
            let also = match place {
                Place::Member(_) => any_member,
                Place::Item(_) => any_item,
                Place::AnyMember | Place::AnyItem => continue,
            };
            most = costlier(most, together(cost_of(Some(parts)), also));
        }
        Cost {
            steps: self.cost.steps.max(most.steps),
            nesting: self.cost.nesting.saturating_add(most.nesting),
        }
    }
}

/// Of two that look at the same value.
fn together(a: Cost, b: Cost) -> Cost {
    Cost {
        steps: a.steps.saturating_add(b.steps),
        nesting: a.nesting.max(b.nesting),
    }
}

fn costlier(a: Cost, b: Cost) -> Cost {
    Cost {
        steps: a.steps.max(b.steps),
        nesting: a.nesting.max(b.nesting),
    }
}

fn within_counting(work: u64) -> Result<(), SchemaError> {
    if work > COUNTING_MAX {
        return Err(SchemaError(
            "is too complicated to be looked through; use fewer references".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    /// Far above what any of it takes, far below what following every reference would.
    const IN_TIME: Duration = Duration::from_secs(20);

    fn refused(schema: &Value) -> String {
        let began = Instant::now();
        let error = Schema::compile(&schema.to_string()).expect_err("refused");
        assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
        error.to_string()
    }

    fn compiled(schema: &Value) -> Schema {
        Schema::compile(&schema.to_string()).expect("a schema")
    }

    fn chain(links: usize, link: impl Fn(&str) -> Value) -> Value {
        let mut defs = serde_json::Map::new();
        for at in 0..links {
            let next = format!("#/$defs/d{}", at + 1);
            defs.insert(format!("d{at}"), link(&next));
        }
        defs.insert(format!("d{links}"), json!({ "type": "string" }));
        json!({ "$ref": "#/$defs/d0", "$defs": defs })
    }

    #[test]
    fn references_that_double_at_each_step_are_refused() {
        let doubling = |next: &str| json!({ "allOf": [{ "$ref": next }, { "$ref": next }] });
        assert!(refused(&chain(40, doubling)).contains("steps for one value"));
        let within = |next: &str| {
            json!({ "anyOf": [{ "properties": { "a": { "$ref": next } } },
                              { "properties": { "a": { "$ref": next } } }] })
        };
        assert!(refused(&chain(40, within)).contains("steps for one value"));
    }

    /// Two ways to itself by the same member: with each level of the value the work doubles.
    #[test]
    fn recursion_that_meets_a_value_twice_is_refused_and_once_is_not() {
        let node = |more: Value| json!({ "$ref": "#/$defs/n", "$defs": { "n": more } });
        let me = json!({ "$ref": "#/$defs/n" });
        let twice = node(
            json!({ "allOf": [{ "properties": { "a": me } }, { "additionalProperties": me }] }),
        );
        assert!(refused(&twice).contains("refer to itself once"));
        let tree = node(json!({ "type": "object", "required": ["v"],
            "properties": { "v": { "type": "integer" }, "left": me, "right": me,
                            "more": { "type": "array", "items": me } } }));
        let tree = compiled(&tree);
        let value = json!({ "v": 1, "left": { "v": 2, "more": [{ "v": 3 }, { "v": "no" }] } });
        let found = tree.violations(&value, 10);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pointer, "/left/more/1/v");
    }

    #[test]
    fn a_schema_that_refers_to_itself_for_the_same_value_is_refused() {
        let endless = json!({ "allOf": [{ "$ref": "#" }] });
        assert!(refused(&endless).contains("without an end"));
        assert!(refused(&chain(2000, |next| json!({ "$ref": next }))).contains("steps"));
    }

    #[test]
    fn what_reaches_beyond_the_document_is_refused() {
        for (schema, why) in [
            (
                json!({ "$ref": "https://example.com/schema" }),
                "no place in this schema",
            ),
            (
                json!({ "$ref": "file:///etc/passwd" }),
                "no place in this schema",
            ),
            (json!({ "$ref": "#/nowhere" }), "no place in this schema"),
            (json!({ "$dynamicRef": "#n" }), "not supported"),
            (
                json!({ "properties": { "a": { "$id": "https://x.example/" } } }),
                "id of its own",
            ),
            (
                json!({ "$schema": "http://json-schema.org/draft-07/schema#" }),
                "another dialect",
            ),
        ] {
            assert!(refused(&schema).contains(why), "{schema}");
        }
        let ours = json!({ "$schema": DIALECT, "$id": "https://x.example/s", "type": "object" });
        compiled(&ours);
    }

    #[test]
    fn patterns_are_bounded_and_their_time_grows_with_the_text_alone() {
        assert!(
            refused(&json!({ "pattern": "a".repeat(PATTERN_CHARS_MAX + 1) }))
                .contains("512 characters")
        );
        let many: Vec<_> = (0..=PATTERNS_MAX)
            .map(|n| json!({ "pattern": n.to_string() }))
            .collect();
        assert!(refused(&json!({ "anyOf": many })).contains("32 patterns"));
        // Compiles to more than it may; looks around, which the engine does not do.
        for pattern in ["(a{1000}){1000}", "(?=a)b", r"(a)\1"] {
            refused(&json!({ "pattern": pattern }));
        }
        let began = Instant::now();
        let evil = compiled(&json!({ "pattern": "^(a+)+$" }));
        let text = format!("{}!", "a".repeat(1 << 20));
        assert_eq!(evil.violations(&json!(text), 1).len(), 1);
        assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    }

    #[test]
    fn a_value_that_is_too_large_for_its_schema_is_told_so() {
        let alternatives: Vec<_> = (0..100).map(|n| json!({ "const": n })).collect();
        let schema = compiled(&json!({ "items": { "anyOf": alternatives } }));
        assert_eq!(schema.violations(&json!(vec![1; 1000]), 5), []);
        let found = schema.violations(&json!(vec![-1; 100_000]), 5);
        assert!(found[0].message.contains("too large"), "{found:?}");
        let found = schema.violations(&json!(vec![-1; 1000]), 5);
        assert_eq!(found.len(), 1, "only the first is looked for");
        let deep = (0..100).fold(json!(1), |value, _| json!([value]));
        assert!(schema.violations(&deep, 5)[0].message.contains("64 deep"));
    }

    #[test]
    fn a_message_repeats_little_of_what_was_sent() {
        let schema = compiled(&json!({ "maxLength": 3 }));
        let found = schema.violations(&json!("x".repeat(10_000)), 5);
        assert!(found[0].message.len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for text in ["", "[]", "true", r#"{"type": 5}"#, r#"{"pattern": "["}"#] {
            Schema::compile(text).expect_err(text);
        }
        let large = json!({ "title": "x".repeat(SCHEMA_BYTES_MAX) }).to_string();
        assert!(Schema::compile(&large).is_err());
    }
}
