//! Nothing of one call is there in another: a guest that looks through its whole memory, its table and its globals
//! for bytes that it did not put there, and then fills them with its own.

use crate::stage::{self, OTHER_TENANT, TENANT, guest, host, invocation, runtime};
use std::sync::Arc;
use tsunami_plugin_host::{Class, Plugin, PluginHost, TenantKey, TenantLimits, adapter::Step};

stage::trials![
    a_small_guest_finds_nothing_of_an_earlier_call,
    a_large_guest_finds_nothing_of_an_earlier_call,
];

/// `now` of a call that leaves its mark before it looks: so that we know that it would find one.
const MARK_FIRST: u64 = 1;

/// Looks from the second page to the last, grows by so many pages and looks there, then marks everything.
fn searching(pages: u32, grown: u32, mark: u64) -> Vec<u8> {
    let all = (pages + grown) * 0x1_0000;
    let module = format!(
        r#"(module
  (memory (export "memory") {pages})
  (table $table 16 funcref)
  (elem declare func $look)
  (global $global (mut i64) (i64.const 0))
  (data (i32.const 512) "clean")
  (data (i32.const 528) "dirty")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func $mark (local $at i32)
    (global.set $global (i64.const {mark}))
    (loop $again
      (table.set $table (local.get $at) (ref.func $look))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 16))))
    (local.set $at (i32.const 0x10000))
    (loop $again
      (i64.store (local.get $at) (i64.const {mark}))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const {all})))))
  (func $look (result i64) (local $at i32) (local $seen i64)
    (local.set $seen (global.get $global))
    (local.set $at (i32.const 0x10000))
    (loop $again
      (local.set $seen (i64.or (local.get $seen) (i64.load (local.get $at))))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const {all}))))
    (local.set $at (i32.const 0))
    (loop $again
      (if (i32.eqz (ref.is_null (table.get $table (local.get $at)))) (then (local.set $seen (i64.const 1))))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 16))))
    (local.get $seen))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32) unreachable)
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next")
      (param i32 i32 i32 i32 i32 i32 i32 i32) (param $now i64) (param i32 i32) (result i32)
    (local $words i32)
    (if (i32.eq (memory.grow (i32.const {grown})) (i32.const -1)) (then unreachable))
    (if (i64.eq (local.get $now) (i64.const {MARK_FIRST})) (then (call $mark)))
    (local.set $words (select (i32.const 512) (i32.const 528) (i64.eqz (call $look))))
    (call $mark)
    ;; ok, finish, the text, no summary
    (i32.store (i32.const 64) (i32.const 0))
    (i32.store (i32.const 72) (i32.const 1))
    (i32.store (i32.const 76) (local.get $words))
    (i32.store (i32.const 80) (i32.const 5))
    (i32.store (i32.const 84) (i32.const 0))
    (i32.store (i32.const 88) (i32.const 0))
    (i32.const 64)))"#
    );
    guest("skill-adapter-plugin", &module)
}

fn finds(plugin: &Plugin, now: u64) -> String {
    let mut call = invocation("x", "{}");
    call.now = now;
    let answer = plugin.next(&call, &[]).expect("an answer").value;
    match answer {
        Ok(Step::Finish(outcome)) => outcome.output,
        other => panic!("{other:?}"),
    }
}

fn nobody_finds_anything(class: Class, pages: u32, grown: u32, calls: usize) {
    let host = host();
    let load = |tenant: TenantKey, mark| -> Arc<Plugin> {
        let loaded = host.load(tenant, searching(pages, grown, mark));
        runtime().block_on(loaded).expect("it loads")
    };
    // Two tenants, three plugins: one that both have, and one more of the other.
    let shared = load(TENANT, 0x1111_2222_3333_4444);
    let others = load(OTHER_TENANT, 0x5555_6666_7777_0888);
    assert_eq!(shared.class(), class);
    assert_eq!(finds(&shared, MARK_FIRST), "dirty", "it would find a mark");
    let calling: Vec<_> = [
        (TENANT, &shared),
        (OTHER_TENANT, &shared),
        (OTHER_TENANT, &others),
    ]
    .into_iter()
    .map(|(tenant, plugin)| runtime().spawn(calls_of(host.clone(), tenant, plugin.clone(), calls)))
    .collect();
    for called in calling {
        let dirty = runtime().block_on(called).expect("every call answered");
        assert_eq!(dirty, 0, "of {calls} calls");
    }
}

/// How many of so many calls found something.
async fn calls_of(host: PluginHost, tenant: TenantKey, plugin: Arc<Plugin>, calls: usize) -> usize {
    let limits = TenantLimits::default();
    let mut dirty = 0;
    for _ in 0..calls {
        let found = host
            .call(tenant, &limits, &plugin, |plugin| finds(plugin, 0))
            .await
            .expect("its turn");
        dirty += usize::from(found != "clean");
    }
    dirty
}

/// Both what is kept resident and copied back, and what is beyond it and given back to the system.
fn a_small_guest_finds_nothing_of_an_earlier_call() {
    nobody_finds_anything(Class::Small, 4, 0, 3000);
    nobody_finds_anything(Class::Small, 4, 60, 500);
}

fn a_large_guest_finds_nothing_of_an_earlier_call() {
    nobody_finds_anything(Class::Large, 160, 40, 150);
}
