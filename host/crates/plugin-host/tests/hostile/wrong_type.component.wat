;; Exports an interface of the right name with nothing in it.
(component
  (instance $empty)
  (export "servicetsunami:plugin/skill-adapter@0.1.0" (instance $empty)))
