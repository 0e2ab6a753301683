;; Spends its time in one instruction that fills 16 MiB, over and over.
;; world: skill-adapter-plugin
(module
  (memory (export "memory") 1)
  (func $grow (drop (memory.grow (i32.const 256))))
  (start $grow)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next") (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32)
    (loop $again
      (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x1000000))
      (br $again))
    unreachable))
