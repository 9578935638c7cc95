using PeftServer.Engine.Adapters;

namespace PeftServer.Engine.Models;

/// <summary>A sequence among the tokens of a run.</summary>
/// <param name="Index">Its number in the batch.</param>
/// <param name="Start">Its first row in the run.</param>
/// <param name="Count">Its rows, those of a prompt included.</param>
/// <param name="PromptRows">How many of them are an adapter's prompt.</param>
/// <param name="Past">Rows of it that went through the model before.</param>
internal readonly record struct SequenceSpan(int Index, int Start, int Count, int PromptRows, int Past);

/// <summary>
/// A sequence in generation: the tokens to feed now, the keys and values of those before, and in an encoder-decoder the encoded
/// text.
/// </summary>
/// <param name="Tokens">What to feed.</param>
/// <param name="Cache">Keys and values so far.</param>
/// <param name="Adapters">What the sequence uses.</param>
/// <param name="Source">The encoded text.</param>
/// <param name="Task">The task it is of, for adapters that know several.</param>
public sealed record CachedSequence(IReadOnlyList<int> Tokens, KeyValueCache Cache, IReadOnlyList<Adapter> Adapters, EncodedSource? Source = null, int Task = 0);
