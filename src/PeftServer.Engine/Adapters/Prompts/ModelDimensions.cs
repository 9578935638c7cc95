using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.Prompts;

/// <summary>What PEFT reads from a model's config for the prompt methods, under whichever names the architecture has for it.</summary>
/// <param name="Layers">Layers of a stack.</param>
/// <param name="TokenDim">Width of a virtual token.</param>
/// <param name="Heads">Heads that a token's width is cut into.</param>
internal sealed record ModelDimensions(int Layers, int TokenDim, int Heads)
{
    /// <summary>The model's; for keys and values those of its key heads, of which there may be fewer than of queries.</summary>
    public static ModelDimensions Read(PretrainedConfig config, bool forKeys)
    {
        var layers = First(config, "num_layers", "num_hidden_layers", "num_layers", "n_layer", "encoder_layers");
        var width = First(config, "token_dim", "hidden_size", "n_embd", "d_model", "n_embed");
        var heads = First(config, "num_attention_heads", "num_attention_heads", "n_head", "num_heads", "encoder_attention_heads");
        if (!forKeys)
        {
            return new ModelDimensions(layers, width, heads);
        }

        var groups = KeyHeads(config, heads);
        return new ModelDimensions(layers, config.Int("head_dim", width / heads) * groups, groups);
    }

    /// <summary>Falcon's config says it otherwise; PEFT does not see that and makes a prefix that Falcon cannot take.</summary>
    private static int KeyHeads(PretrainedConfig config, int heads) => config.ModelType switch
    {
        "falcon" when config.Flag("new_decoder_architecture", false) => throw new AdapterException(
            "peft_type", "Prefixes are not supported on a Falcon of the new decoder architecture, whose keys PEFT stores once for every query."),
        "falcon" => config.Flag("multi_query", true) ? 1 : heads,
        _ => config.Int("num_key_value_heads", heads),
    };

    private static int First(PretrainedConfig config, string field, params string[] names) =>
        names.FirstOrDefault(config.Has) is { } name
            ? config.Int(name)
            : throw new AdapterException(field, $"The config of this {config.ModelType} model has none of {string.Join(", ", names)}.");
}
