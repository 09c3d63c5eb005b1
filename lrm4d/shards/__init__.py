"""Tar shards of scenes to train on: the schema (schema.py), reading, shuffling by counting, and view sampling."""

from lrm4d.shards.archive import Entry as Entry
from lrm4d.shards.archive import find_shards as find_shards
from lrm4d.shards.archive import index_shard as index_shard
from lrm4d.shards.archive import read_files as read_files
from lrm4d.shards.archive import write_shard as write_shard
from lrm4d.shards.fitting import fit_square as fit_square
from lrm4d.shards.reader import ShardReader as ShardReader
from lrm4d.shards.sampling import EpochOrder as EpochOrder
from lrm4d.shards.sampling import choose_views as choose_views
from lrm4d.shards.schema import PackedScene as PackedScene
from lrm4d.shards.schema import SceneHeader as SceneHeader
from lrm4d.shards.schema import pack_scene as pack_scene
