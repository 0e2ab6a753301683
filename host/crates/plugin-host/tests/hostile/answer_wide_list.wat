;; Answers with a list of 60,000 texts that all are one text of 64 KiB: 4 GB, out of 1 MiB of memory.
;; world: skill-adapter-plugin
(module
  (memory (export "memory") 20)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#describe") (result i32)
    unreachable)
  (func (export "servicetsunami:plugin/skill-adapter@0.1.0#next") (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32)
    (local $at i32)
    ;; A failure, invalid-params: a list of violations, each of two texts.
    (i32.store8 (i32.const 64) (i32.const 1))
    (i32.store8 (i32.const 72) (i32.const 0))
    (i32.store (i32.const 80) (i32.const 0x20000))
    (i32.store (i32.const 84) (i32.const 60000))
    (loop $again
      (i32.store offset=0x20000 (i32.mul (local.get $at) (i32.const 16)) (i32.const 0x10000))
      (i32.store offset=0x20004 (i32.mul (local.get $at) (i32.const 16)) (i32.const 0x10000))
      (i32.store offset=0x20008 (i32.mul (local.get $at) (i32.const 16)) (i32.const 0x10000))
      (i32.store offset=0x2000c (i32.mul (local.get $at) (i32.const 16)) (i32.const 0x10000))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 60000))))
    (i32.const 64)))
