//! Components that are too much in a way that a text file cannot hold.

use crate::stage::guest;
use std::fmt::Write;
use tsunami_plugin_host::adapter::Manifest;

/// A component around one core module, instantiated.
fn component(module: &str) -> Vec<u8> {
    let text = format!("(component (core module $m {module}) (core instance (instantiate $m)))");
    wat::parse_str(text).expect("it is WAT")
}

/// Functions of so many branches each, across which a thousand local variables live: kilobytes that keep an optimising
/// compiler busy for seconds, and ask for gigabytes.
pub fn live_locals(functions: usize, branches: usize) -> Vec<u8> {
    let mut module = String::new();
    for _ in 0..functions {
        module.push_str("(func (param i32) (result i64) (local");
        module.push_str(&" i64".repeat(1000));
        module.push(')');
        for local in 1..=1000 {
            let _ = write!(
                module,
                "(local.set {local} (i64.extend_i32_u (local.get 0)))"
            );
        }
        for branch in 0..branches {
            let local = 1 + branch % 1000;
            let _ = write!(
                module,
                "(loop (local.set {local} (i64.add (local.get {local}) (i64.const 1))) (br_if 0 (local.get 0)))"
            );
        }
        module.push_str("(i64.const 0)");
        for local in 1..=1000 {
            let _ = write!(module, "(local.get {local}) i64.add ");
        }
        module.push(')');
    }
    component(&module)
}

/// Small functions that compile to much more than they are.
pub fn swelling(functions: usize, calls: usize) -> Vec<u8> {
    let body = "(local.set 0 (call 0 (local.get 0) (local.get 0) (local.get 0)))".repeat(calls);
    let function = format!("(func (param i64 i64 i64) (result i64) {body} (local.get 0))");
    component(&function.repeat(functions))
}

/// One function of so many instructions.
pub fn long_function(instructions: usize) -> Vec<u8> {
    let body = "(local.set 0 (i32.add (local.get 0) (i32.const 1)))".repeat(instructions / 4);
    component(&format!(
        "(func (param i32) (result i32) {body} (local.get 0))"
    ))
}

/// Functions beyond number.
pub fn many_functions(functions: usize) -> Vec<u8> {
    component(&"(func)".repeat(functions))
}

/// Ten thousand instances of a module that is next to nothing.
pub fn many_instances(instances: usize) -> Vec<u8> {
    let instances = "(core instance (instantiate $m))".repeat(instances);
    wat::parse_str(format!("(component (core module $m) {instances})")).expect("it is WAT")
}

/// Components that instantiate one another ten times each: ten to the power of `levels` instances of the innermost,
/// in a few hundred bytes.
pub fn multiplying(levels: usize) -> Vec<u8> {
    let mut inner =
        "(component $c0 (core module $m (memory 1)) (core instance (instantiate $m)))".to_owned();
    for level in 1..=levels {
        let instances = format!("(instance (instantiate $c{}))", level - 1).repeat(10);
        inner = format!("(component $c{level} {inner} {instances})");
    }
    let text = inner.replacen(&format!("(component $c{levels}"), "(component", 1);
    wat::parse_str(text).expect("it is WAT")
}

/// A type within a type within a type.
pub fn deep_type(levels: usize) -> Vec<u8> {
    let mut text = String::from("(component (type $t0 u8)");
    for level in 1..=levels {
        let _ = write!(text, "(type $t{level} (list $t{}))", level - 1);
    }
    let _ = write!(
        text,
        "(import \"servicetsunami:plugin/log@0.1.0\" (instance (export \"write\" (func (param \"x\" $t{levels}))))))"
    );
    wat::parse_str(text).expect("it is WAT")
}

/// A type of two of the one before, and so on: two to the power of `levels` parts in a few hundred bytes.
pub fn doubling_type(levels: usize) -> Vec<u8> {
    let mut text = String::from("(component (type $t0 u8)");
    for level in 1..=levels {
        let _ = write!(
            text,
            "(type $t{level} (tuple $t{} $t{}))",
            level - 1,
            level - 1
        );
    }
    text.push(')');
    wat::parse_str(text).expect("it is WAT")
}

/// Two references to the next of 40, and so on.
pub fn doubling_schema(manifest: &mut Manifest) {
    let mut definitions = String::from("\"d40\":{}");
    for at in 0..40 {
        let next = format!("{{\"$ref\":\"#/$defs/d{}\"}}", at + 1);
        let _ = write!(definitions, ",\"d{at}\":{{\"allOf\":[{next},{next}]}}");
    }
    manifest.settings_schema = format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{definitions}}}}}");
}

/// As many actions as an answer has room for.
pub fn many_actions(manifest: &mut Manifest) {
    let mut action = manifest.actions[0].clone();
    for text in [
        &mut action.name,
        &mut action.title,
        &mut action.summary,
        &mut action.params_schema,
        &mut action.output_schema,
    ] {
        text.clear();
    }
    action.examples.clear();
    action.scopes.clear();
    manifest.actions = vec![action; 2000];
}

/// As many schemas as a manifest may have, which together are as large as an answer may be.
pub fn many_schemas(manifest: &mut Manifest) {
    let properties: Vec<_> = (0..180)
        .map(|at| format!("\"property_{at}\":{{\"type\":\"string\"}}"))
        .collect();
    let schema = format!(
        "{{\"type\":\"object\",\"properties\":{{{}}}}}",
        properties.join(",")
    );
    let mut action = manifest.actions[0].clone();
    (action.params_schema, action.output_schema) = (schema.clone(), schema);
    manifest.actions = (0..64)
        .map(|at| {
            let mut action = action.clone();
            action.name = format!("action_{at}");
            action
        })
        .collect();
}

/// A file that was damaged on its way.
pub fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at..at + 64].iter_mut().for_each(|b| *b = !*b);
    flipped
}

/// A guest of the adapter's world, with nothing in it: for what happens before it is called.
pub fn harmless() -> Vec<u8> {
    guest(
        "skill-adapter-plugin",
        r#"(module (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32) unreachable)
            (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32) unreachable))"#,
    )
}
