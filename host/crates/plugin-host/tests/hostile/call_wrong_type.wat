;; Calls a function through the table as if it were of another type.
;; world: skill-adapter-plugin
(module
  (memory (export "memory") 1)
  (table 1 1 funcref)
  (func $other (param i64))
  (elem (i32.const 0) $other)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next") (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32)
    (call_indirect (result i32) (i32.const 0))))
