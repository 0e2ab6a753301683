;; Exports the adapter of a version that does not exist yet.
(component
  (instance $empty)
  (export "servicetsunami:plugin/skill-adapter@0.2.0" (instance $empty)))
