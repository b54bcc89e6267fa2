package sim

// Template is a scenario with every key, explained; it runs as it is where NSL-KDD
// is at hand.
const Template = `# A scenario for hedgerow sim. Everything that is not said has the value shown.

name = "first"
depth = "rounds"          # rounds: models and their aggregation; mesh: whole nodes
seed = 1                  # the same seed gives the same bytes

[sites]
count = 20
partition = "dirichlet"   # iid, dirichlet, family, time, place
alpha = 0.5               # of dirichlet: the smaller, the less the sites are alike
absent = 0.0              # chance that a site misses a round

[data]
set = "nsl-kdd"           # hedgerow sim data check lists them (below --data); or:
# file = "flows.csv"      # any CSV file, from this file's folder,
# mapping = "flows.toml"  # and what its columns mean (docs/evaluate.md)
# captures = "list.toml"  # or captures and logs of flows (docs/simulation.md)
# sha256 = []             # of the files, in order; then other data are refused
rows = 0                  # most training rows in all; 0: all
shuffle = false           # shuffle the training labels: all must fall to chance

[training]
rounds = 25
steps = 10                # of each site in each round; the same for all
batch = 32
rate = 0.05
hidden = [48]             # widths of the hidden layers

[rule]
name = "geometric-median+mask"
f = -1                    # liars to withstand; -1: as many as the rule can, at most 30 %
clip = 64.0               # longest update

[gate]
on = false                # each site examines a model before it uses it
held = 0.25               # share of its rows that a site keeps for that
normals = 10              # held normal rows without which a site judges nothing; with mix, attacks too
mix = false               # true: try mixtures of the round's model with the site's own

[privacy]
noise = 0.0               # added to what a site trains for the others, in clips; 0: none
clip = 1.0                # longest contribution of one row to a step
delta = 1e-5              # at which the report tells each site's epsilon

[attackers]
attack = "alie"           # docs/simulation.md lists them
share = 0.2               # of the sites

[measure]
every = 5                 # rounds between measurements
rows = 4000               # most validation, and most test rows

# What follows is for depth = "mesh", which uses nothing of the above but the name,
# the seed and sites.count. Times are in seconds.

[nodes]
seconds = 600.0           # how long the nodes live
flows = 10.0              # ordinary sessions a second at each site
organisations = 1         # 1: all sites trust each other; more: they weigh words; 0: each alone
learner = false           # train models, beside the counting rules
warmup = 800              # flows before a first model
retrain = 3600.0          # between trainings
rounds = 1200.0           # between rounds of shared models
block = 3600.0            # how long a block stands

[campaigns]
attackers = 4             # that go from site to site
kinds = ["scan", "brute"] # in turn; also beacon and spurt
begin = 120.0             # when the first begins
every = 30.0              # between the beginnings of two
move = 45.0               # from one site to the next
sites = 0                 # that each goes to; 0: all

# At both depths; times are in seconds, or at depth rounds in rounds.
[network]
delay = 0.05              # of a message between sites, one way
jitter = 0.05             # 0 to this is added
loss = 0.0                # share of messages
away = 0.0                # share of its time in which a site is cut off,
spell = 30.0              # so long each time
cuts = []                 # {from = 100.0, until = 200.0, share = 0.3}: so many sites are parted from the rest
`
