"""Every option of every command, declared once: name, type, default, help. The command line is made from this.

One frozen dataclass a command; the text below a field is its `--help`.
"""

from prl_keras.config.data import DataOptions as DataOptions
from prl_keras.config.data import PictureOptions as PictureOptions
from prl_keras.config.data import RunDataOptions as RunDataOptions
from prl_keras.config.data import RunPictureOptions as RunPictureOptions
from prl_keras.config.kinds import option_words as option_words
from prl_keras.config.kinds import typed as typed
from prl_keras.config.looking import Evaluate as Evaluate
from prl_keras.config.looking import Report as Report
from prl_keras.config.looking import Visualize as Visualize
from prl_keras.config.ranges import check_least as check_least
from prl_keras.config.ranges import check_seed as check_seed
from prl_keras.config.tables import EpisodeOptions as EpisodeOptions
from prl_keras.config.tables import Reproduce as Reproduce
from prl_keras.config.tables import Tune as Tune
from prl_keras.config.training import Baseline as Baseline
from prl_keras.config.training import Finetune as Finetune
from prl_keras.config.training import Pretrain as Pretrain
from prl_keras.config.training import RecipeOptions as RecipeOptions
from prl_keras.config.training import RunOptions as RunOptions
from prl_keras.config.training import TrainingOptions as TrainingOptions
from prl_keras.config.training import changed as changed
from prl_keras.config.unused import check_unused as check_unused
from prl_keras.config.unused import unused_but_given as unused_but_given
from prl_keras.config.unused import unused_options as unused_options
from prl_keras.config.using import Data as Data
from prl_keras.config.using import Embed as Embed
from prl_keras.config.using import Export as Export
from prl_keras.config.using import Predict as Predict
from prl_keras.config.using import Recipes as Recipes
from prl_keras.config.using import Runs as Runs
from prl_keras.config.using import Teach as Teach
