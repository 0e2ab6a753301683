;; Reads beyond its memory, where its neighbour may be.
;; world: skill-adapter-plugin
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next") (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32)
    (i32.load offset=0xfffffffc (i32.const 0x7fffffff))))
