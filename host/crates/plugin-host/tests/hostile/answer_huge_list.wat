;; Answers with a request whose URL has 268,435,456 parts.
;; world: skill-adapter-plugin
(module
  (memory (export "memory") 1)
  (data (i32.const 64) "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\10")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next") (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32)
    (i32.const 64)))
