"""What becomes of each field of the original's ``pipeline.config``.

Names and defaults are those of the original's protos (``object_detection/protos``, read in the
package ``tf-models-research-object-detection`` 2.8.0); the arithmetic behind a weight is that of
``center_net_meta_arch.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepmac.nn.mask_heads import MASK_HEADS

MODEL = "model.center_net"
MASKS = f"{MODEL}.deepmac_mask_estimation"
EXTRACTOR = f"{MODEL}.feature_extractor"
RESIZER = f"{MODEL}.image_resizer.keep_aspect_ratio_resizer"
BOXES = f"{MODEL}.object_detection_task"
CENTERS = f"{MODEL}.object_center_params"
FOCAL = f"{CENTERS}.classification_loss.penalty_reduced_logistic_focal_loss"
TRAIN = "train_config"
ADAM = f"{TRAIN}.optimizer.adam_optimizer"
MOMENTUM = f"{TRAIN}.optimizer.momentum_optimizer"
READERS = ("train_input_reader", "eval_input_reader")
AUGMENTATIONS = f"{TRAIN}.data_augmentation_options"

Kind = Literal["int", "float", "bool", "str", "message"]


@dataclass(frozen=True)
class Field:
    """One field that the original knows.

    Attributes:
        kind: of its value.
        default: what it is where the file leaves it out; None: nothing.
        to: our setting; None: see ``why``, or it is read together with others.
        words: value -> ours, where they are named differently.
        fixed: the only value that this project has a counterpart for, which needs no setting.
        why: what it becomes, or why nothing.
        repeated: it may be given several times.
        unused: whatever it says, it has no counterpart.
    """

    kind: Kind
    default: Any = None
    to: str | None = None
    words: Mapping[Any, Any] | None = None
    fixed: Any = None
    why: str = ""
    repeated: bool = False
    unused: bool = False


def _fixed(kind: Kind, default: Any, why: str, fixed: Any = None) -> Field:
    return Field(kind, default, fixed=default if fixed is None else fixed, why=why)


def _none(why: str, kind: Kind = "message") -> Field:
    return Field(kind, why=why, repeated=True, unused=True)


_PLUMBING = "how the original's programs read, queue and save; it does not change what is learned"
_OTHER_TASK = "another task of CenterNet's, which this project does not have"
_OTHER_LOSS = "the only loss here is the one of the original's Deep-MAC configs"
_OTHER_RATE = "learning rates here are cosine or constant (model.lr_schedule)"
_SCALED = "pictures are scaled to fit a padded square of data.image_size"
_REPORTED = "metrics are COCO's for boxes and masks, on the split's seen, unseen and all classes"
_DRAWN = "what the original draws and prints of an evaluation; see callbacks.pictures"
_HEADS = "the heads' first layer is 3x3 with model.head_channels channels"

_JITTER = {
    word.upper(): word
    for word in (
        *("default", "expand", "shrink", "expand_symmetric", "shrink_symmetric"),
        *("expand_symmetric_xy", "shrink_symmetric_xy"),
    )
}
_NORMALIZE = {
    "NORMALIZE_AUTO": "auto",
    "NORMALIZE_GROUNDTRUTH_COUNT": "groundtruth_count",
    "NORMALIZE_BALANCED": "balanced",
}
_AGREEMENT = {"LOSS_DICE": "dice", "LOSS_MSE": "mse", "LOSS_KLDIV": "kl", "LOSS_KL": "kl"}
_LOSSES = "model.losses"

FIELDS: dict[str, Field] = {
    f"{MODEL}.num_classes": _none(
        "class slots are the categories of the training set; of weights of the original that "
        "model.init_from names, all 90", "int",
    ),
    f"{EXTRACTOR}.type": Field("str", why="the group backbone"),
    f"{EXTRACTOR}.channel_means": Field("float", repeated=True, why="model.normalization"),
    f"{EXTRACTOR}.channel_stds": Field("float", repeated=True, why="model.normalization"),
    f"{EXTRACTOR}.bgr_ordering": Field("bool", why="model.normalization"),
    f"{EXTRACTOR}.use_depthwise": _fixed("bool", False, "backbones have plain convolutions"),
    f"{EXTRACTOR}.depth_multiplier": _fixed("float", 1.0, "backbones have their own width"),
    f"{EXTRACTOR}.use_separable_conv": _fixed("bool", False, "backbones have plain convolutions"),
    f"{EXTRACTOR}.upsampling_interpolation": _fixed("str", "nearest", "hourglasses repeat cells"),
    f"{MODEL}.use_depthwise": _fixed("bool", False, "heads have plain convolutions"),
    f"{MODEL}.compute_heatmap_sparse": _fixed(
        "bool", False, "how the same heatmap is computed", fixed=...
    ),
    f"{MODEL}.output_prediction_dict": _fixed("bool", False, "what is exported", fixed=...),
    f"{MODEL}.post_processing": _none("Deep-MAC has none: no NMS, no thresholds"),
    **{
        f"{MODEL}.{task}": _none(_OTHER_TASK)
        for task in ("keypoint_estimation_task", "mask_estimation_task",
                     "densepose_estimation_task", "track_estimation_task", "temporal_offset_task")
    },
    f"{MODEL}.keypoint_label_map_path": _none(_OTHER_TASK, "str"),
    f"{RESIZER}.min_dimension": Field("int", 600, why="data.image_size"),
    f"{RESIZER}.max_dimension": Field("int", 1024, to="data.image_size"),
    f"{RESIZER}.resize_method": _fixed("str", "BILINEAR", "pictures are scaled bilinearly"),
    f"{RESIZER}.pad_to_max_dimension": _fixed("bool", False, _SCALED, fixed=True),
    f"{RESIZER}.convert_to_grayscale": _fixed("bool", False, "networks see three channels"),
    f"{RESIZER}.per_channel_pad_value": _none("padding is black", "float"),
    **{
        f"{MODEL}.image_resizer.{name}": _none(_SCALED)
        for name in ("fixed_shape_resizer", "identity_resizer", "conditional_shape_resizer",
                     "pad_to_multiple_resizer")
    },
    f"{BOXES}.task_loss_weight": Field("float", 1.0, why="a factor of both weights beside it"),
    f"{BOXES}.offset_loss_weight": Field("float", 1.0, to=f"{_LOSSES}.offset_weight"),
    f"{BOXES}.scale_loss_weight": Field("float", 0.1, to=f"{_LOSSES}.size_weight"),
    f"{BOXES}.localization_loss.l1_localization_loss": Field("message", why="L1, as here"),
    f"{BOXES}.localization_loss": _none(_OTHER_LOSS),
    f"{BOXES}.scale_head_params": _none(_HEADS),
    f"{BOXES}.offset_head_params": _none(_HEADS),
    f"{CENTERS}.object_center_loss_weight": Field("float", 1.0, to=f"{_LOSSES}.heatmap_weight"),
    f"{CENTERS}.min_box_overlap_iou": Field("float", 0.7, to=f"{_LOSSES}.min_iou"),
    f"{CENTERS}.max_box_predictions": Field("int", 100, to="model.max_detections"),
    f"{FOCAL}.alpha": Field("float", 0.0, to=f"{_LOSSES}.focal_alpha"),
    f"{FOCAL}.beta": Field("float", 0.0, to=f"{_LOSSES}.focal_beta"),
    f"{CENTERS}.classification_loss": _none(_OTHER_LOSS),
    f"{CENTERS}.heatmap_bias_init": _fixed("float", -2.19, "where heatmaps start"),
    f"{CENTERS}.use_labeled_classes": _fixed(
        "bool", False, "marks of what is not annotated come with the data (data.exhaustive)"
    ),
    f"{CENTERS}.keypoint_weights_for_center": _none(_OTHER_TASK, "float"),
    f"{CENTERS}.center_head_params": _none(_HEADS),
    f"{CENTERS}.peak_max_pool_kernel_size": _fixed("int", 3, "peaks are those of 3x3 cells"),
    f"{MASKS}.dim": Field("int", 256, to="model.dim"),
    f"{MASKS}.task_loss_weight": Field("float", 1.0, to=f"{_LOSSES}.mask_weight"),
    f"{MASKS}.pixel_embedding_dim": Field("int", 16, to="model.pixel_embedding_dim"),
    f"{MASKS}.allowed_masked_classes_ids": Field("int", repeated=True, why="the group split"),
    f"{MASKS}.mask_size": Field("int", 32, to="model.mask_size"),
    f"{MASKS}.mask_num_subsamples": _fixed(
        "int", -1, "every object with a mask is learned from (the original raises on others)"
    ),
    f"{MASKS}.use_xy": Field("bool", True, to="model.use_xy"),
    f"{MASKS}.network_type": Field(
        "str", "hourglass52", to="/mask_head", words={name: name for name in MASK_HEADS}
    ),
    f"{MASKS}.use_instance_embedding": Field("bool", True, to="model.use_instance_embedding"),
    f"{MASKS}.num_init_channels": Field("int", 64, to="model.num_init_channels"),
    f"{MASKS}.predict_full_resolution_masks": Field(
        "bool", False, to="model.predict_full_resolution_masks"
    ),
    f"{MASKS}.postprocess_crop_size": Field("int", 256, to="model.postprocess_crop_size"),
    f"{MASKS}.classification_loss.weighted_sigmoid": Field("message", why="cross_entropy"),
    f"{MASKS}.classification_loss.weighted_dice_classification_loss": Field("message", why="dice"),
    f"{MASKS}.classification_loss": _none(_OTHER_LOSS),
    f"{MASKS}.max_roi_jitter_ratio": Field("float", 0.0, to="data.max_roi_jitter_ratio"),
    f"{MASKS}.jitter_mode": Field("str", "DEFAULT", to="data.roi_jitter_mode", words=_JITTER),
    f"{MASKS}.box_consistency_loss_weight": Field(
        "float", 0.0, to=f"{_LOSSES}.box_consistency.weight"
    ),
    f"{MASKS}.box_consistency_loss_normalize": Field(
        "str", "NORMALIZE_AUTO", to=f"{_LOSSES}.box_consistency.normalization", words=_NORMALIZE
    ),
    f"{MASKS}.box_consistency_tightness": Field(
        "bool", False, to=f"{_LOSSES}.box_consistency.tightness"
    ),
    f"{MASKS}.color_consistency_threshold": Field(
        "float", 0.4, to=f"{_LOSSES}.color_consistency.threshold"
    ),
    f"{MASKS}.color_consistency_dilation": Field(
        "int", 2, to=f"{_LOSSES}.color_consistency.dilation"
    ),
    f"{MASKS}.color_consistency_loss_weight": Field(
        "float", 0.0, to=f"{_LOSSES}.color_consistency.weight"
    ),
    f"{MASKS}.color_consistency_warmup_steps": Field(
        "int", 0, to=f"{_LOSSES}.color_consistency.warmup_steps"
    ),
    f"{MASKS}.color_consistency_warmup_start": Field(
        "int", 0, to=f"{_LOSSES}.color_consistency.warmup_start"
    ),
    f"{MASKS}.use_only_last_stage": Field("bool", False, to=f"{_LOSSES}.use_only_last_stage"),
    f"{MASKS}.augmented_self_supervision_max_translation": Field(
        "float", 0.0, to=f"{_LOSSES}.self_supervision.max_translation"
    ),
    f"{MASKS}.augmented_self_supervision_flip_probability": Field(
        "float", 0.0, to=f"{_LOSSES}.self_supervision.flip_probability"
    ),
    f"{MASKS}.augmented_self_supervision_loss_weight": Field(
        "float", 0.0, to=f"{_LOSSES}.self_supervision.weight"
    ),
    f"{MASKS}.augmented_self_supervision_warmup_start": Field(
        "int", 0, to=f"{_LOSSES}.self_supervision.warmup_start"
    ),
    f"{MASKS}.augmented_self_supervision_warmup_steps": Field(
        "int", 0, to=f"{_LOSSES}.self_supervision.warmup_steps"
    ),
    f"{MASKS}.augmented_self_supervision_scale_min": Field(
        "float", 1.0, to=f"{_LOSSES}.self_supervision.scale_min"
    ),
    f"{MASKS}.augmented_self_supervision_scale_max": Field(
        "float", 1.0, to=f"{_LOSSES}.self_supervision.scale_max"
    ),
    f"{MASKS}.augmented_self_supervision_loss": Field(
        "str", "LOSS_DICE", to=f"{_LOSSES}.self_supervision.kind", words=_AGREEMENT
    ),
    f"{MASKS}.pointly_supervised_keypoint_loss_weight": Field(
        "float", 0.0, to=f"{_LOSSES}.point_supervision.weight"
    ),
    f"{MASKS}.ignore_per_class_box_overlap": Field(
        "bool", False, to=f"{_LOSSES}.ignore_class_overlap"
    ),
    f"{TRAIN}.batch_size": Field("int", 32, why="images a step over all devices"),
    f"{TRAIN}.num_steps": Field("int", 0, to="trainer.max_steps"),
    f"{ADAM}.epsilon": Field("float", 1e-8, to="model.adam_epsilon"),
    **{
        f"{optimizer}.learning_rate.{name}": field
        for optimizer in (ADAM, MOMENTUM)
        for name, field in {
            "cosine_decay_learning_rate.learning_rate_base": Field("float", 0.002, to="model.lr"),
            "cosine_decay_learning_rate.total_steps": Field(
                "int", 4_000_000, why="the learning rate is 0 at trainer.max_steps"
            ),
            "cosine_decay_learning_rate.warmup_learning_rate": Field(
                "float", 0.0002, to="model.warmup_start_lr"
            ),
            "cosine_decay_learning_rate.warmup_steps": Field(
                "int", 10_000, to="model.warmup_steps"
            ),
            "cosine_decay_learning_rate.hold_base_rate_steps": _fixed(
                "int", 0, "the learning rate falls right after the warm-up"
            ),
            "constant_learning_rate.learning_rate": Field("float", 0.002, to="model.lr"),
            "exponential_decay_learning_rate": _none(_OTHER_RATE),
            "manual_step_learning_rate": _none(_OTHER_RATE),
        }.items()
    },
    f"{MOMENTUM}.momentum_optimizer_value": _fixed("float", 0.9, "model.optimizer=sgd has 0.9"),
    f"{TRAIN}.optimizer.rms_prop_optimizer": _none("model.optimizer is adam, sgd or a class"),
    f"{TRAIN}.optimizer.use_moving_average": Field("bool", True, why="the group callbacks"),
    f"{TRAIN}.optimizer.moving_average_decay": Field("float", 0.9999, why="the group callbacks"),
    f"{TRAIN}.gradient_clipping_by_norm": Field("float", 0.0, to="trainer.gradient_clip_val"),
    f"{TRAIN}.fine_tune_checkpoint": _none(
        "convert the checkpoint (`deepmac convert CHECKPOINT --out DIR`), then start from it with "
        "model.init_from=DIR/model.safetensors", "str",
    ),
    f"{TRAIN}.fine_tune_checkpoint_type": _none(
        "model.init_from takes what fits, and says what did not", "str"
    ),
    f"{TRAIN}.fine_tune_checkpoint_version": _none("checkpoints of TensorFlow 2 convert", "str"),
    f"{TRAIN}.max_number_of_boxes": _fixed(
        "int", 100, "pictures are padded to 100 boxes under model.compat"
    ),
    f"{TRAIN}.unpad_groundtruth_tensors": _fixed(
        "bool", True, "pictures are padded to 100 boxes under model.compat", fixed=False
    ),
    f"{TRAIN}.use_bfloat16": Field(
        "bool", False, to="trainer.precision", words={True: "bf16-mixed", False: None}
    ),
    f"{TRAIN}.add_regularization_loss": _fixed(
        "bool", True, "Deep-MAC's networks have no regularisation", fixed=...
    ),
    f"{TRAIN}.freeze_variables": _none("model.freeze=backbone freezes the backbone", "str"),
    f"{TRAIN}.update_trainable_variables": _none(
        "model.freeze=backbone freezes the backbone", "str"
    ),
    f"{TRAIN}.bias_grad_multiplier": _fixed("float", 0.0, "biases learn as all else"),
    f"{TRAIN}.merge_multiple_label_boxes": _fixed("bool", False, "every box has one class"),
    f"{TRAIN}.use_multiclass_scores": _fixed("bool", False, "every box has one class"),
    **{
        f"{TRAIN}.{name}": _none(_PLUMBING, "str")
        for name in (
            *("sync_replicas", "keep_checkpoint_every_n_hours", "startup_delay_steps"),
            *("replicas_to_aggregate", "batch_queue_capacity", "num_batch_queue_threads"),
            *("prefetch_queue_capacity", "retain_original_images", "summarize_gradients"),
            *("from_detection_checkpoint", "load_all_detection_checkpoint_vars"),
            "run_fine_tune_checkpoint_dummy_computation",
        )
    },
    **{
        f"{reader}.{name}": field
        for reader in READERS
        for name, field in {
            "tf_record_input_reader.input_path": Field("str", repeated=True, why="data.root"),
            "label_map_path": _none(
                "the label map is the .pbtxt beside the records (or in the folder above)", "str"
            ),
            "load_instance_masks": _fixed("bool", False, "masks are read where they are", True),
            "mask_type": _fixed("str", "NUMERICAL_MASKS", "either kind is read", fixed=...),
            "shuffle": _fixed("bool", True, "training alone is shuffled", fixed=...),
            "input_type": _fixed("str", "TF_EXAMPLE", "records are Examples"),
            "max_number_of_boxes": _fixed("int", 100, "as train_config.max_number_of_boxes"),
            "sample_1_of_n_examples": _fixed("int", 1, "every picture is used"),
            "num_additional_channels": _fixed("int", 0, "pictures have three channels"),
            "use_display_name": _fixed("bool", False, "either name of a class counts", fixed=...),
            "expand_labels_hierarchy": _fixed("bool", False, "classes have no hierarchy"),
            "load_multiclass_scores": _fixed("bool", False, "every box has one class"),
            **{
                other: _none(_OTHER_TASK, "str")
                for other in (
                    *("num_keypoints", "keypoint_type_weight", "load_dense_pose", "load_track_id"),
                    *("load_keypoint_depth_features", "use_keypoint_label_map", "frame_index"),
                    *("load_context_features", "load_context_image_ids"),
                )
            },
            **{
                other: _none(_PLUMBING, "str")
                for other in (
                    *("name", "shuffle_buffer_size", "filenames_shuffle_buffer_size", "num_epochs"),
                    *("num_readers", "num_parallel_batches", "num_prefetch_batches"),
                    *("queue_capacity", "min_after_dequeue", "read_block_length", "prefetch_size"),
                    *("num_parallel_map_calls", "drop_remainder", "include_source_id"),
                )
            },
            "external_input_reader": _none("data comes from data.root"),
            "sample_from_datasets_weights": _none("data comes from one data.root", "float"),
        }.items()
    },
    "eval_config.batch_size": _none("data.val_batch_size; it changes no figure", "int"),
    "eval_config.metrics_set": _none(_REPORTED, "str"),
    "eval_config.include_metrics_per_category": _none(_REPORTED, "bool"),
    "eval_config.all_metrics_per_category": _none(_REPORTED, "bool"),
    "eval_config.super_categories": _none(_REPORTED),
    "eval_config.parameterized_metric": _none(_REPORTED),
    "eval_config.recall_lower_bound": _none(_REPORTED, "float"),
    "eval_config.recall_upper_bound": _none(_REPORTED, "float"),
    "eval_config.use_moving_averages": _none("an average is evaluated where there is one", "bool"),
    "eval_config.skip_predictions_for_unlabeled_class": _none(_REPORTED, "bool"),
    "eval_config.image_classes_field_map_empty_to_ones": _none(_REPORTED, "bool"),
    "eval_config.force_no_resize": _fixed("bool", False, _SCALED),
    **{
        f"eval_config.{name}": _none(_DRAWN, "str")
        for name in (
            *("num_visualizations", "num_examples", "eval_interval_secs", "max_evals"),
            *("save_graph", "visualization_export_dir", "eval_master", "export_path"),
            *("ignore_groundtruth", "eval_instance_masks", "min_score_threshold"),
            *("max_num_boxes_to_visualize", "skip_scores", "skip_labels"),
            *("visualize_groundtruth_boxes", "groundtruth_box_visualization_color"),
            *("keep_image_id_for_visualization_export", "retain_original_images"),
            *("retain_original_image_additional_channels", "use_dummy_loss_in_eval"),
            "keypoint_edge",
        )
    },
    "graph_rewriter": _none("quantisation is a matter of export"),
}  # fmt: skip

COLORS: dict[str, dict[str, float]] = {
    "random_adjust_hue": {"max_delta": 0.02},
    "random_adjust_contrast": {"min_delta": 0.8, "max_delta": 1.25},
    "random_adjust_saturation": {"min_delta": 0.8, "max_delta": 1.25},
    "random_adjust_brightness": {"max_delta": 0.2},
}
"""Augmentations that ``data.color`` draws together, with the strengths it has."""
