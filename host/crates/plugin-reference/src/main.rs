//! Writes docs/plugins/reference.md from the contract: `cargo run -p tsunami-plugin-reference -- wit/v0.1`.

use std::{fmt::Write, path::PathBuf, process::ExitCode};
use wit_parser::{
    Docs, Function, Interface, Resolve, Type, TypeDef, TypeDefKind, WorldItem, WorldKey,
};

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1).map(PathBuf::from) else {
        eprintln!("reference: name the folder of the contract");
        return ExitCode::FAILURE;
    };
    let mut resolve = Resolve::default();
    match resolve.push_dir(&folder) {
        Ok((package, _)) => {
            print!("{}", page(&resolve, package));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("reference: {}: {error:#}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn page(resolve: &Resolve, package: wit_parser::PackageId) -> String {
    let package = &resolve.packages[package];
    let mut out = format!(
        "# The contract, {}\n\nWritten by `scripts/generate` from the WIT files. What each function promises, and the limits, stand in \
         [wit/README.md](../../wit/README.md); [the tutorial](tutorial.md) begins from nothing.\n\n{}",
        package.name,
        paragraphs(&package.docs)
    );
    out.push_str("## Worlds\n\nWhat a plugin is made for.\n\n");
    for id in package.worlds.values() {
        let world = &resolve.worlds[*id];
        let exported: Vec<String> = world
            .exports
            .iter()
            .filter_map(|(key, item)| named(resolve, key, item))
            .collect();
        let _ = writeln!(
            out,
            "- **`{}`** exports {}. {}",
            world.name,
            exported.join(", "),
            one_line(&world.docs)
        );
    }
    for id in package.interfaces.values() {
        out.push('\n');
        interface(resolve, &resolve.interfaces[*id], &mut out);
    }
    out
}

fn named(resolve: &Resolve, key: &WorldKey, item: &WorldItem) -> Option<String> {
    match (key, item) {
        (WorldKey::Interface(id), WorldItem::Interface { .. }) => {
            let name = resolve.interfaces[*id].name.clone()?;
            Some(format!("[`{name}`](#interface-{name})"))
        }
        (WorldKey::Name(name), _) => Some(format!("`{name}`")),
        _ => None,
    }
}

fn interface(resolve: &Resolve, interface: &Interface, out: &mut String) {
    let name = interface.name.as_deref().unwrap_or_default();
    let _ = write!(
        out,
        "## Interface {name}\n\n{}",
        paragraphs(&interface.docs)
    );
    for (name, function) in &interface.functions {
        function_of(resolve, name, function, out);
    }
    for (name, id) in &interface.types {
        type_of(resolve, name, &resolve.types[*id], out);
    }
}

fn function_of(resolve: &Resolve, name: &str, function: &Function, out: &mut String) {
    let params = function.params.iter();
    let params: Vec<String> = params
        .map(|p| format!("{}: {}", p.name, spelt(resolve, &p.ty)))
        .collect();
    let result = function
        .result
        .as_ref()
        .map(|ty| format!(" -> {}", spelt(resolve, ty)));
    let _ = write!(
        out,
        "### Function {name}\n\n`{name}: func({}){}`\n\n{}",
        params.join(", "),
        result.unwrap_or_default(),
        paragraphs(&function.docs)
    );
}

fn type_of(resolve: &Resolve, name: &str, definition: &TypeDef, out: &mut String) {
    let docs = paragraphs(&definition.docs);
    match &definition.kind {
        // What an interface only uses stands where it is defined.
        TypeDefKind::Type(Type::Id(_)) => {}
        TypeDefKind::Record(record) => {
            let _ = write!(
                out,
                "### Record {name}\n\n{docs}| field | type | |\n|---|---|---|\n"
            );
            for field in &record.fields {
                row(out, &field.name, &spelt(resolve, &field.ty), &field.docs);
            }
            out.push('\n');
        }
        TypeDefKind::Variant(variant) => {
            let _ = write!(
                out,
                "### Variant {name}\n\n{docs}| case | of | |\n|---|---|---|\n"
            );
            for case in &variant.cases {
                let of = case.ty.as_ref().map(|ty| spelt(resolve, ty));
                row(out, &case.name, &of.unwrap_or_default(), &case.docs);
            }
            out.push('\n');
        }
        TypeDefKind::Enum(cases) => {
            let _ = write!(out, "### Enumeration {name}\n\n{docs}");
            for case in &cases.cases {
                let says = one_line(&case.docs);
                let says = if says.is_empty() {
                    says
                } else {
                    format!(": {says}")
                };
                let _ = writeln!(out, "- `{}`{says}", case.name);
            }
            out.push('\n');
        }
        other => {
            let spelling = match other {
                TypeDefKind::Type(ty) => spelt(resolve, ty),
                other => kind_spelt(resolve, other),
            };
            let _ = write!(out, "### Type {name}\n\n`{name} = {spelling}`\n\n{docs}");
        }
    }
}

fn row(out: &mut String, name: &str, ty: &str, docs: &Docs) {
    let ty = if ty.is_empty() {
        String::new()
    } else {
        format!("`{ty}`")
    };
    let _ = writeln!(
        out,
        "| `{name}` | {ty} | {} |",
        one_line(docs).replace('|', "\\|")
    );
}

/// A type as WIT spells it.
fn spelt(resolve: &Resolve, ty: &Type) -> String {
    let text = match ty {
        Type::Id(id) => {
            let definition = &resolve.types[*id];
            return match &definition.name {
                Some(name) => name.clone(),
                None => kind_spelt(resolve, &definition.kind),
            };
        }
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
    };
    text.to_owned()
}

fn kind_spelt(resolve: &Resolve, kind: &TypeDefKind) -> String {
    let of = |ty: &Option<Type>| ty.as_ref().map_or("_".to_owned(), |ty| spelt(resolve, ty));
    match kind {
        TypeDefKind::Option(ty) => format!("option<{}>", spelt(resolve, ty)),
        TypeDefKind::List(ty) => format!("list<{}>", spelt(resolve, ty)),
        TypeDefKind::Result(result) => format!("result<{}, {}>", of(&result.ok), of(&result.err)),
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<String> = tuple.types.iter().map(|ty| spelt(resolve, ty)).collect();
            format!("tuple<{}>", types.join(", "))
        }
        TypeDefKind::Type(ty) => spelt(resolve, ty),
        // The contract has no other; a new one is to be spelt here before it is published.
        other => panic!("a type of the kind {} has no spelling here", other.as_str()),
    }
}

fn paragraphs(docs: &Docs) -> String {
    match &docs.contents {
        Some(text) => format!("{}\n\n", text.trim()),
        None => String::new(),
    }
}

fn one_line(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
