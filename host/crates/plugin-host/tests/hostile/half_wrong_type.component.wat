;; Exports a function of the right name in an interface of the right name, and of another type.
(component
  (core module $m (func (export "f") (result i32) (i32.const 1)))
  (core instance $i (instantiate $m))
  (func $f (result u32) (canon lift (core func $i "f")))
  (instance $wrong (export "describe" (func $f)) (export "next" (func $f)))
  (export "servicetsunami:plugin/skill-adapter@0.1.0" (instance $wrong)))
