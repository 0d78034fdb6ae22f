"""The four pipeline.configs of the original's Deep-MAC, written from their facts."""

VOC_IDS = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72)
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
OTHER_IDS = tuple(i for i in range(1, 91) if i not in (*VOC_IDS, *UNUSED_IDS))


def config(size: int, head: str, ids: tuple[int, ...], start: str, more: str = "") -> str:
    """One of them: they differ in size, mask head, classes with masks, and where they start."""
    allowed = f"allowed_masked_classes_ids: [{', '.join(map(str, ids))}]" if ids else ""
    return f"""
model {{
  center_net {{
    num_classes: 90
    feature_extractor {{
      type: "hourglass_104"
      bgr_ordering: true
      channel_means: [104.01362025, 114.03422265, 119.9165958 ]
      channel_stds: [73.6027665 , 69.89082075, 70.9150767 ]
    }}
    image_resizer {{
      keep_aspect_ratio_resizer {{
        min_dimension: {size}
        max_dimension: {size}
        pad_to_max_dimension: true
      }}
    }}
    object_detection_task {{
      task_loss_weight: 1.0
      offset_loss_weight: 1.0
      scale_loss_weight: 0.1
      localization_loss {{ l1_localization_loss {{}} }}
    }}
    object_center_params {{
      object_center_loss_weight: 1.0
      min_box_overlap_iou: 0.7
      max_box_predictions: 100
      classification_loss {{
        penalty_reduced_logistic_focal_loss {{ alpha: 2.0 beta: 4.0 }}
      }}
    }}
    deepmac_mask_estimation {{
      dim: 32
      task_loss_weight: 5.0
      pixel_embedding_dim: 16
      mask_size: 32
      use_xy: true
      use_instance_embedding: true
      network_type: "{head}"
      classification_loss {{ weighted_sigmoid {{}} }}
      {more}
      {allowed}
    }}
  }}
}}
train_config: {{
  batch_size: 128
  num_steps: 50000
  data_augmentation_options {{ random_horizontal_flip {{}} }}
  data_augmentation_options {{ random_adjust_hue {{}} }}
  data_augmentation_options {{ random_adjust_contrast {{}} }}
  data_augmentation_options {{ random_adjust_saturation {{}} }}
  data_augmentation_options {{ random_adjust_brightness {{}} }}
  data_augmentation_options {{
    random_square_crop_by_scale {{ scale_min: 0.6 scale_max: 1.3 }}
  }}
  optimizer {{
    adam_optimizer: {{
      epsilon: 1e-7  # Keras' own
      learning_rate: {{
        cosine_decay_learning_rate {{
          learning_rate_base: 1e-3
          total_steps: 50000
          warmup_learning_rate: 2.5e-4
          warmup_steps: 5000
        }}
      }}
    }}
    use_moving_average: false
  }}
  max_number_of_boxes: 100
  unpad_groundtruth_tensors: false
  fine_tune_checkpoint_version: V2
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/{start}"
  fine_tune_checkpoint_type: "detection"
}}
train_input_reader: {{
  load_instance_masks: true
  label_map_path: "PATH_TO_BE_CONFIGURED/label_map.txt"
  mask_type: PNG_MASKS
  tf_record_input_reader {{
    input_path: "PATH_TO_BE_CONFIGURED/train2017-?????-of-00256.tfrecord"
  }}
}}
eval_config: {{
  metrics_set: "coco_detection_metrics"
  metrics_set: "coco_mask_metrics"
  include_metrics_per_category: true
  use_moving_averages: false
  batch_size: 1;
  super_categories {{ key: "VOC" value: "person,bicycle,car," "motorcycle" }}
  super_categories {{ key: "person" value: "person" }}
}}
eval_input_reader: {{
  load_instance_masks: true
  mask_type: PNG_MASKS
  label_map_path: "PATH_TO_BE_CONFIGURED/label_map.txt"
  shuffle: false
  num_epochs: 1
  tf_record_input_reader {{
    input_path: "PATH_TO_BE_CONFIGURED/val2017-?????-of-00032.tfrecord"
  }}
}}
"""


OFFICIAL = {
    "voc_to_nonvoc": config(512, "hourglass52", VOC_IDS, "ckpt-1"),
    "voc_to_nonvoc_1024": config(1024, "hourglass100", VOC_IDS, "ckpt-51"),
    "nonvoc_to_voc_1024": config(1024, "hourglass100", OTHER_IDS, "ckpt-51"),
    "coco_1024": config(1024, "hourglass100", (), "ckpt-51"),
}
"""By the name of our experiment. The 512 config's newest form adds ``use_only_last_stage: true``,
a field that the code of the release does not have."""
