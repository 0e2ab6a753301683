;; Gives the host room beyond its memory to put the arguments in.
;; world: skill-adapter-plugin
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const -65536))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next") (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32)
    unreachable))
