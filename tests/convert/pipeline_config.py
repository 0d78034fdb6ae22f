"""A pipeline.config with what the original's have."""

CONFIG = """
model { center_net {
  num_classes: 90
  feature_extractor {
    type: "hourglass_104"
    bgr_ordering: true
    channel_means: [104.01362025, 114.03422265, 119.9165958 ]
    channel_stds: [73.6027665 , 69.89082075, 70.9150767 ]
  }
  image_resizer { keep_aspect_ratio_resizer {
    min_dimension: 1024 max_dimension: 1024 pad_to_max_dimension: true } }
  object_center_params { max_box_predictions: 50 }
  deepmac_mask_estimation {
    dim: 32 pixel_embedding_dim: 16 mask_size: 32 use_xy: true
    network_type: "hourglass100"  # the deepest
    allowed_masked_classes_ids: [1, 2, 3] allowed_masked_classes_ids: 72
  }
} }
train_config: < batch_size: 128; fine_tune_checkpoint: 'a' "b" >
"""
