using System.ComponentModel.DataAnnotations;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Prompts;

/// <summary>
/// The settings of a method that puts virtual tokens before every sequence: as embeddings, or as keys and values of every layer. What depends on
/// the model is read from it where it is absent, and written to the file, as PEFT does.
/// </summary>
public abstract record PromptConfig : AdapterConfig
{
    /// <summary>Virtual tokens before every sequence. PEFT has no default for it; here it is 20.</summary>
    [Range(1, 16384)]
    public int NumVirtualTokens { get; init; } = 20;

    /// <summary>Width of a virtual token: that of the model's embeddings, or that of one layer's keys. Absent: the model's.</summary>
    public int? TokenDim { get; init; }

    /// <summary>Stacks of layers that the prompt is for: 1, or 2 for an encoder with a decoder. Absent: what the model has.</summary>
    [Range(1, 2)]
    public int? NumTransformerSubmodules { get; init; }

    /// <summary>Heads of attention, of keys where the method puts keys. Absent: the model's.</summary>
    public int? NumAttentionHeads { get; init; }

    /// <summary>Layers of the model. Absent: the model's.</summary>
    public int? NumLayers { get; init; }

    /// <summary>Modules that train in full and are saved beside the prompt, such as a new head.</summary>
    public IReadOnlyList<string>? ModulesToSave { get; init; }

    /// <summary>Whether the prompt is keys and values of every layer rather than embeddings.</summary>
    internal virtual bool IsPrefix => false;

    /// <summary>Rows that it puts before the embeddings of a text.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public int PromptRows => IsPrefix ? 0 : NumVirtualTokens;

    public sealed override Adapter CreateAdapter(PretrainedModel model)
    {
        var dimensions = ModelDimensions.Read(model.Config, IsPrefix);
        Require("num_layers", NumLayers, dimensions.Layers);
        Require("token_dim", TokenDim, dimensions.TokenDim);
        Require("num_attention_heads", NumAttentionHeads, dimensions.Heads);
        var resolved = WithWidths(dimensions.TokenDim) with
        {
            NumLayers = dimensions.Layers,
            TokenDim = dimensions.TokenDim,
            NumAttentionHeads = dimensions.Heads,
            NumTransformerSubmodules = NumTransformerSubmodules ?? (TaskType is Adapters.TaskType.Seq2SeqLm ? 2 : 1),
            ModulesToSave = WithHeads(),
        };
        return new PromptAdapter(resolved, model, resolved.CreateEncoder());
    }

    /// <summary>What the rows are computed from.</summary>
    internal abstract PromptEncoder CreateEncoder();

    /// <summary>These settings with the defaults filled in that follow from the width of a token.</summary>
    internal virtual PromptConfig WithWidths(int tokenDim) => this;

    private void Require(string field, int? given, int expected)
    {
        if (given is { } value && value != expected)
        {
            throw new AdapterException(field, $"The model has {expected}, not {value}. Leave the field out.");
        }
    }

    /// <summary>PEFT names the heads of a task twice for these methods, and the file says so.</summary>
    private IReadOnlyList<string>? WithHeads()
    {
        var heads = TargetModules.WithHeads(null, TaskType);
        return heads is null || heads.All(head => ModulesToSave?.Contains(head) is true) ? ModulesToSave : [.. ModulesToSave ?? [], .. heads, .. heads];
    }
}
