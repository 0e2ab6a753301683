//! What can be said of a component without compiling it: one pass over its bytes, in the serving process. Everything
//! here grows with the size of the file and with nothing else, so a file of a kilobyte cannot keep it busy.

use crate::{
    Class, Limits, LoadError,
    imports::is_given,
    limits::{LOCALS_MAX, NESTING_MAX},
};
use wasmparser::{BinaryReaderError, ComponentTypeRef, Instance, Parser, Payload};

/// A page of WebAssembly's memory, in bytes, where it does not say otherwise.
const PAGE_BYTES: u64 = 64 << 10;
/// Refused imports that an error names.
const IMPORTS_NAMED_MAX: usize = 20;

/// What a component is made of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    bytes: usize,
    functions: u64,
    function_bytes: u64,
    locals: u64,
    core_instances: u64,
    memory_minimum_bytes: u64,
    table_elements: u64,
    refused_imports: Vec<String>,
}

/// Which class a file belongs to; the smallest that it fits into.
///
/// # Errors
/// What is wrong with it, and the limit that it exceeds.
pub fn check_file(bytes: &[u8], limits: &Limits) -> Result<Class, LoadError> {
    check_head(bytes, limits)?;
    let shape = shape_of(bytes)?;
    if !shape.refused_imports.is_empty() {
        return Err(LoadError::Import(shape.refused_imports));
    }
    if fits(&shape, limits, Class::Small).is_ok() {
        return Ok(Class::Small);
    }
    fits(&shape, limits, Class::Large)
        .map(|()| Class::Large)
        .map_err(LoadError::TooMuch)
}

fn check_head(bytes: &[u8], limits: &Limits) -> Result<(), LoadError> {
    let max = Class::ALL.map(|class| limits.of(class).component_bytes_max);
    let max = max.into_iter().max().unwrap_or_default();
    if bytes.len() > max {
        let bytes = bytes.len();
        return Err(LoadError::TooLarge { bytes, max });
    }
    match bytes.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => Ok(()),
        Some(head) if head.starts_with(b"\0asm\x01\0\0\0") => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotAComponent {
            begins: begins_with(bytes),
        }),
    }
}

fn begins_with(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing: it is empty".into();
    }
    let head = &bytes[..bytes.len().min(8)];
    format!("the bytes {}", hex::encode(head))
}

fn shape_of(bytes: &[u8]) -> Result<Shape, LoadError> {
    let mut shape = Shape {
        bytes: bytes.len(),
        ..Shape::default()
    };
    let mut nesting = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|e| LoadError::Invalid(e.to_string()))?;
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => nesting += 1,
            Payload::End(_) => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if nesting > NESTING_MAX {
            return Err(LoadError::TooMuch(format!(
                "its modules and components lie more than {NESTING_MAX} deep in one another"
            )));
        }
        shape
            .add(&payload, nesting == 0)
            .map_err(|e| LoadError::Invalid(e.to_string()))?;
        if shape.locals > LOCALS_MAX {
            return Err(LoadError::TooMuch(format!(
                "one of its functions has {} local variables; it may have {LOCALS_MAX}",
                shape.locals
            )));
        }
    }
    Ok(shape)
}

impl Shape {
    fn add(&mut self, payload: &Payload<'_>, is_outermost: bool) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::ComponentImportSection(imports) if is_outermost => {
                for import in imports.clone() {
                    let import = import?;
                    let name = import.name.name;
                    let is_interface = matches!(import.ty, ComponentTypeRef::Instance(_));
                    if !(is_interface && is_given(name))
                        && self.refused_imports.len() < IMPORTS_NAMED_MAX
                    {
                        self.refused_imports.push(name.to_owned());
                    }
                }
            }
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    let made = matches!(instance?, Instance::Instantiate { .. });
                    self.core_instances += u64::from(made);
                }
            }
            Payload::FunctionSection(functions) => self.functions += u64::from(functions.count()),
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    let memory = memory?;
                    let page = match memory.page_size_log2 {
                        Some(log2) => 1_u64.checked_shl(log2).unwrap_or(u64::MAX),
                        None => PAGE_BYTES,
                    };
                    self.memory_minimum_bytes = self
                        .memory_minimum_bytes
                        .saturating_add(memory.initial.saturating_mul(page));
                }
            }
            Payload::TableSection(tables) => {
                for table in tables.clone() {
                    self.table_elements = self.table_elements.saturating_add(table?.ty.initial);
                }
            }
            Payload::CodeSectionEntry(body) => {
                self.function_bytes = self.function_bytes.max(body.range().len() as u64);
                let mut locals = 0_u64;
                for group in body.get_locals_reader()? {
                    locals += u64::from(group?.0);
                }
                self.locals = self.locals.max(locals);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Says which limit of the class it exceeds.
fn fits(shape: &Shape, limits: &Limits, class: Class) -> Result<(), String> {
    let limits = limits.of(class);
    let count = |what: &str, has: u64, max: u64| {
        if has <= max {
            return Ok(());
        }
        Err(format!("it has {has} {what}; a plugin may have {max}"))
    };
    count(
        "bytes",
        shape.bytes as u64,
        limits.component_bytes_max as u64,
    )?;
    count("functions", shape.functions, limits.functions_max)?;
    count(
        "bytes in one function",
        shape.function_bytes,
        limits.function_bytes_max,
    )?;
    count(
        "core modules that are instantiated",
        shape.core_instances,
        limits.core_instances_max.into(),
    )?;
    count(
        "bytes of memory to begin with",
        shape.memory_minimum_bytes,
        limits.memory_minimum_bytes_max,
    )?;
    count(
        "table elements",
        shape.table_elements,
        limits.table_elements_max as u64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Class, LoadError> {
        check_file(
            &wat::parse_str(text).expect("it is WAT"),
            &Limits::default(),
        )
    }

    fn module(inside: &str) -> String {
        format!("(component (core module $m {inside}) (core instance (instantiate $m)))")
    }

    fn too_much(text: &str) -> String {
        match check(text) {
            Err(LoadError::TooMuch(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_class_is_the_smallest_that_a_component_fits_into() {
        assert_eq!(check("(component)").unwrap(), Class::Small);
        assert_eq!(check(&module("(memory 128)")).unwrap(), Class::Small);
        assert_eq!(check(&module("(memory 129)")).unwrap(), Class::Large);
        let nine = "(core instance (instantiate $m))".repeat(9);
        let nine = format!("(component (core module $m) {nine})");
        assert_eq!(check(&nine).unwrap(), Class::Large);
    }

    #[test]
    fn what_exceeds_every_class_is_told_what_it_exceeds() {
        assert!(too_much(&module("(memory 513)")).contains("33619968 bytes of memory"));
        assert!(too_much(&module("(table 40001 funcref)")).contains("40001 table elements"));
        let locals = format!("(func (local {}))", "i32 ".repeat(1001));
        assert!(too_much(&module(&locals)).contains("1001 local variables"));
        let long = format!("(func {})", "nop ".repeat((1 << 20) + 1));
        assert!(too_much(&module(&long)).contains("bytes in one function"));
        assert!(too_much(&module(&"(func)".repeat(40_001))).contains("40001 functions"));
        let many = "(core instance (instantiate $m))".repeat(65);
        assert!(too_much(&format!("(component (core module $m) {many})")).contains("65 core"));
        let deep = format!("{}{}", "(component ".repeat(10), ")".repeat(10));
        assert!(too_much(&deep).contains("more than 8 deep"));
    }

    /// Two locals a byte, and a function a few bytes: 20 kB that compile for seconds.
    #[test]
    fn locals_are_counted_and_not_their_groups() {
        let mut module = wasm_encoder_like_module(50_000);
        assert!(matches!(
            check_file(&module, &Limits::default()),
            Err(LoadError::TooMuch(_))
        ));
        module = wasm_encoder_like_module(1000);
        assert_eq!(
            check_file(&module, &Limits::default()).unwrap(),
            Class::Small
        );
    }

    /// A component around a module with one function and so many locals, which the text format would spell out.
    fn wasm_encoder_like_module(locals: u32) -> Vec<u8> {
        let leb = |mut n: u32| {
            let mut out = vec![];
            while n >= 0x80 {
                out.push((n & 0x7f) as u8 | 0x80);
                n >>= 7;
            }
            out.push(n as u8);
            out
        };
        let section = |id: u8, body: Vec<u8>| [vec![id], leb(body.len() as u32), body].concat();
        let body = [vec![1], leb(locals), vec![0x7f, 0x0b]].concat();
        let code = [vec![1], leb(body.len() as u32), body].concat();
        let module = [
            b"\0asm\x01\0\0\0".to_vec(),
            section(1, vec![1, 0x60, 0, 0]),
            section(3, vec![1, 0]),
            section(10, code),
        ]
        .concat();
        [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
    }

    #[test]
    fn an_import_is_refused_by_its_exact_name_whatever_it_is() {
        for (name, kind) in [
            ("wasi:filesystem/types@0.2.6", "(instance)"),
            ("wasi:sockets/tcp@0.2.6", "(instance)"),
            ("wasi:http/outgoing-handler@0.2.6", "(instance)"),
            ("wasi:clocks/timezone@0.2.6", "(instance)"),
            ("wasi:cli/environment@0.3.0", "(instance)"),
            ("wasi:cli/environment@0.2.0-rc-1", "(instance)"),
            ("wasi:cli/environment", "(instance)"),
            ("servicetsunami:plugin/log@0.2.0", "(instance)"),
            ("servicetsunami:plugin/store@0.1.0", "(instance)"),
            ("evil", "(func)"),
            // The name of an interface, for something else.
            ("log", "(func)"),
        ] {
            let text = format!(r#"(component (import "{name}" {kind}))"#);
            let error = check(&text).expect_err(name);
            assert!(
                matches!(&error, LoadError::Import(names) if names == &[name]),
                "{name}: {error}"
            );
            assert!(error.to_string().contains(name), "{error}");
        }
        let given = r#"(component (import "servicetsunami:plugin/log@0.1.0" (instance))
            (import "wasi:clocks/wall-clock@0.2.12" (instance)))"#;
        assert_eq!(check(given).unwrap(), Class::Small);
    }

    /// What a component within imports is given to it by the one around it.
    #[test]
    fn imports_of_inner_components_are_none_of_ours() {
        let inner = r#"(component (component (import "anything" (func))))"#;
        assert_eq!(check(inner).unwrap(), Class::Small);
    }
}
