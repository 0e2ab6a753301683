;; Says it as where its answer would lie.
;; world: credential-schema-plugin
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/credential-schema@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/credential-schema@0.1.0#check") (param i32 i32 i32 i32) (result i32)
    (i32.mul (i32.load8_u (local.get 2)) (i32.const 0x100000))))
