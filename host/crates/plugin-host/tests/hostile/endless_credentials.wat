;; Describes its credentials for ever.
;; world: credential-schema-plugin
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/credential-schema@0.1.0#describe") (result i32)
    (loop $again (br $again)) unreachable)
  (func (export "servicetsunami:plugin/credential-schema@0.1.0#check") (param i32 i32 i32 i32) (result i32)
    unreachable))
