"""How many replicas everything on the paths of the graphs has, decided at once.

counters of replicas ─► rates ─► load of each pool ─► replicas for it ─► held down ─► within the budget
                        of graphs · visits · seconds    (staffing)       (policy)     (budget)
"""
