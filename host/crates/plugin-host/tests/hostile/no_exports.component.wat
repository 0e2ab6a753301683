;; Is a component, and exports nothing.
(component)
