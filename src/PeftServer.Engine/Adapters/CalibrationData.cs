using PeftServer.Engine.Data;

namespace PeftServer.Engine.Adapters;

/// <summary>Rows that a method looks at before it starts, in batches: what the job trains on.</summary>
internal sealed record CalibrationData(IReadOnlyList<IReadOnlyList<TrainingRow>> Batches);
