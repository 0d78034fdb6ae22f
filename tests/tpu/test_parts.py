"""Parts of the product on XLA, one process each; what they do is in cases.py."""


def test_mask_heads__all_run_forward_and_backward_without_leaving_the_device(case):
    case("every_mask_head_stays_on_the_device")


def test_hourglass_104_and_weak_losses__do_not_leave_the_device(case):
    case("a_narrow_hourglass_104_and_all_weak_losses_stay_on_the_device")


def test_recomputed_activations__give_the_same_step(case):
    case("recomputed_activations_give_the_same_step")


def test_deepmarc__gives_masks_of_given_boxes_without_leaving_the_device(case):
    case("deepmarc_masks_of_given_boxes_stay_on_the_device")


def test_bfloat16__is_for_products_alone(case):
    case("bfloat16_is_for_products_alone")


def test_batch_norm__keeps_the_statistics_of_other_devices(case):
    case("batch_norm_statistics_are_those_of_other_devices")


def test_collectives__work_at_world_size_one(case):
    case("collectives_work_at_world_size_one", XLA_ALWAYS_ALLREDUCE="1")


def test_loader__that_fails_fails_where_the_batch_is_asked_for(case):
    case("a_loader_that_fails_fails_where_the_batch_is_asked_for")


def test_step_report__keeps_the_first_bad_step_until_somebody_looks(case):
    case("reports_keep_the_first_bad_step_until_somebody_looks")


def test_two_devices__train_as_one(case):
    case("two_devices_equal_one", CPU_NUM_DEVICES="2")


def test_private_names_of_torch_xla__are_there(case):
    case("private_names_are_there")
