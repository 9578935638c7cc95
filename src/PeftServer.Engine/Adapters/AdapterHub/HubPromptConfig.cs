using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// The library's prompt tuning: rows before the embeddings of a sequence, behind their norm and without positions. A classifier then
/// reads the first of them. Tokens keep the positions they have without a prompt.
/// </summary>
public sealed record HubPromptConfig : HubMethod
{
    public int PromptLength { get; init; } = 10;

    /// <summary>"random_uniform", or "from_string": the embeddings of <see cref="PromptInitText"/>.</summary>
    public string PromptInit { get; init; } = "random_uniform";

    public string? PromptInitText { get; init; }

    /// <summary>Rows start uniform between minus this and this. The library does not save it; we do.</summary>
    public double RandomUniformScale { get; init; } = 0.5;

    /// <summary>"prefix" is all there is.</summary>
    public string Combine { get; init; } = "prefix";

    internal override void Check()
    {
        if (PromptLength < 1)
        {
            throw new AdapterException("prompt_length", "must be at least 1.");
        }

        if (PromptInit is not ("random_uniform" or "from_string"))
        {
            throw new AdapterException("prompt_init", $"'{PromptInit}' is unknown. Use random_uniform or from_string.");
        }

        if (PromptInit == "from_string" && string.IsNullOrEmpty(PromptInitText))
        {
            throw new AdapterException("prompt_init_text", "is needed with prompt_init \"from_string\".");
        }

        if (Combine != "prefix")
        {
            throw new AdapterException("combine", $"'{Combine}' is not supported. Use prefix.");
        }
    }

    internal override void Attach(HubAdapter adapter)
    {
        var site = adapter.Model.Modules().OfType<HiddenSite>().FirstOrDefault(site => site.Layer < 0)
            ?? throw new AdapterException("architecture", $"prompt_tuning is not possible on {adapter.Model.Config.ModelType}.");
        adapter.Attach(site, new HubPrompt(this, adapter, site.Width), "");
    }
}
