using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Prompts;

/// <summary>What a prompt is computed from while it trains. The file holds the result alone.</summary>
internal abstract class PromptEncoder
{
    /// <summary>The weights behind the prompt, by PEFT's live names: <c>embedding.weight</c>.</summary>
    public abstract IEnumerable<(string Name, Weight Weight)> Weights { get; }

    /// <summary>Those of <see cref="Weights"/> that are saved beside the prompt as they are.</summary>
    public virtual IEnumerable<(string Key, Weight Weight)> Companions => [];

    /// <summary>Tokens of the prompt that are labels, so that training learns them as it does those of a row.</summary>
    public virtual IReadOnlyList<PromptTarget> Targets => [];

    /// <summary>The rows that are saved, [rows, width], in float32, with gradients where they are on.</summary>
    public abstract Tensor Encode();

    /// <summary>The same in training, where an encoder may drop values; not so where <paramref name="draws"/> is null.</summary>
    public virtual Tensor Encode(Generator? draws) => Encode();

    /// <summary>The rows for a sequence of a task, given those that are saved. Throws <see cref="AdapterException"/> where there is no such task.</summary>
    public virtual Tensor ForTask(Tensor rows, int task) => rows;

    /// <summary>Draws the weights as the method starts.</summary>
    public abstract void Initialize(PretrainedModel model, Generator generator);

    /// <summary>Fills what weights can be had back from saved rows, so that a loaded prompt trains on; where it cannot, nothing.</summary>
    public virtual void Take(Tensor rows)
    {
    }
}

/// <summary>A token of a prompt that training learns from what stands before it.</summary>
/// <param name="Source">Row of the prompt whose hidden state is scored.</param>
/// <param name="Token">The token after it.</param>
/// <param name="Weight">What its loss counts.</param>
public sealed record PromptTarget(int Source, int Token, double Weight);
