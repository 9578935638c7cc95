namespace PeftServer.Core.Jobs;

/// <summary>Why a job failed, in words for its owner.</summary>
/// <param name="Code">For programs: <c>invalid_training_file</c>, <c>deleted_training_file</c>, <c>trainer_crashed</c>, …</param>
/// <param name="Message">For people: what is wrong and what to do.</param>
/// <param name="Param">The field of the request at fault, where there is one.</param>
public sealed record JobError(string Code, string Message, string? Param = null);
