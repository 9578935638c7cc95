using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Evaluation.Graders;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Has the policy answer prompts, and graders reward the answers.</summary>
internal sealed class RolloutWriter(
    Tokenizer tokenizer, IReadOnlySet<int> stops, CausalLanguageModel model, Adapter adapter, GrpoSettings settings, IReadOnlyDictionary<string, string>? embeddingModels = null) : IDisposable
{
    private readonly Rollouts _rollouts = new(model, adapter);
    private readonly TextEmbeddings _embeddings = new(embeddingModels ?? new Dictionary<string, string>(), model.Device);

    /// <summary>A group of completions to each prompt, those of a prompt together, and what is told about them. The draws follow from the seed.</summary>
    public (IReadOnlyList<RolloutRow> Completions, Dictionary<string, double> Told) Write(IReadOnlyList<Prompt> prompts, ulong seed, Func<bool> goesOn)
    {
        var asked = prompts.SelectMany(prompt => Enumerable.Repeat(prompt, settings.NumGenerations)).ToList();
        var draws = new SeededRandom(seed, 0);
        var sampling = asked.ConvertAll(prompt => new SamplingParameters
        {
            MaxTokens = Math.Max(1, Math.Min(settings.MaxCompletionLength, model.MaxLength - prompt.Ids.Length)),
            Temperature = settings.Temperature,
            TopP = settings.TopP,
            TopK = settings.TopK,
            Seed = draws.Next(),
            StopTokens = stops,
        });
        var written = _rollouts.Write([.. asked.Select(prompt => prompt.Ids)], sampling, goesOn);
        var rewards = asked.Zip(written, (prompt, rollout) => settings.Grader!.Grade(new GradedSample(tokenizer.Decode(rollout.Words), prompt.Item) { Embeddings = _embeddings }))
            .Select(reward => double.IsFinite(reward) ? reward : 0).ToList();
        var advantages = GrpoAdvantages.Of(rewards, settings.NumGenerations, settings.ScaleRewards);
        var groups = rewards.Chunk(settings.NumGenerations).ToList();
        return (
            [.. asked.Zip(written, advantages).Select(each => new RolloutRow(
                [.. each.First.Ids, .. each.Second.Ids], each.Second.IsTruncated && settings.MaskTruncatedCompletions ? 0 : each.Second.Ids.Length, each.First.Line, each.Third))],
            new Dictionary<string, double>
            {
                ["reward"] = rewards.Average(),
                ["reward_std"] = groups.Average(Deviation),
                ["frac_reward_zero_std"] = groups.Average(group => group.Distinct().Count() == 1 ? 1.0 : 0.0),
                ["completions/mean_length"] = written.Average(rollout => rollout.Ids.Length),
                ["completions/clipped_ratio"] = written.Average(rollout => rollout.IsTruncated ? 1.0 : 0.0),
            });
    }

    public void Dispose() => _embeddings.Dispose();

    private static double Deviation(double[] values)
    {
        var mean = values.Average();
        return Math.Sqrt(values.Sum(value => (value - mean) * (value - mean)) / Math.Max(1, values.Length - 1));
    }
}

/// <summary>A prompt with a completion of the policy's.</summary>
/// <param name="InputIds">Prompt and completion.</param>
/// <param name="TrainedCount">Tokens at their end that are learnt: the completion's, or none.</param>
/// <param name="Line">Line of the prompt in its file.</param>
/// <param name="Advantage">By how much it is better than its group.</param>
internal sealed record RolloutRow(int[] InputIds, int TrainedCount, long Line, double Advantage)
{
    /// <summary>Log-probabilities of those tokens under the policy that wrote them; absent where that is the one that learns.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public float[]? OldLogProbs { get; init; }

    public TrainingRow ToTraining() => new(InputIds, [.. Enumerable.Range(0, InputIds.Length).Select(i => i >= InputIds.Length - TrainedCount)], Line);
}
