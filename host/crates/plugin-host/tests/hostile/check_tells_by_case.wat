;; Says the first character of a credential as a case that the answer does not have.
;; world: credential-schema-plugin
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/credential-schema@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/credential-schema@0.1.0#check") (param i32 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 2048) (i32.const 1))
    (i32.store8 (i32.const 2049) (i32.load8_u (local.get 2)))
    (i32.const 2048)))
