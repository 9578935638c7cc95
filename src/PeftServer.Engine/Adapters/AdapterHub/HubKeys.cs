namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>Keys in the library's files: some come twice, some depend on what the adapter was saved from, some are of old versions.</summary>
internal static class HubKeys
{
    private static readonly (string Old, string New)[] Legacy =
    [
        ("attention_text_task_adapters", "adapters"), ("attention_text_lang_adapters", "adapters"), ("layer_text_task_adapters", "adapters"),
        ("layer_text_lang_adapters", "adapters"), ("invertible_lang_adapters", "invertible_adapters"),
    ];

    /// <summary>The key without what stands before the body, in today's names: an adapter of a bare model fits one with a head, and the other way.</summary>
    public static string Canonical(string key, HubAdapter adapter)
    {
        foreach (var (old, modern) in Legacy)
        {
            key = key.Replace(old, modern, StringComparison.Ordinal);
        }

        var root = adapter.Architecture.Base + ".";
        return root.Length > 1 && key.StartsWith(root, StringComparison.Ordinal) ? key[root.Length..] : key;
    }

    /// <summary>Whether the library wrote the tensor under another key too: a prefix under every attention, a norm by its own name.</summary>
    public static bool IsRepeated(string key, IReadOnlyDictionary<string, Tensor> tensors)
    {
        const string Norm = ".adapter_norm_before.";
        return key.Contains(".prefix_tuning.pool.", StringComparison.Ordinal)
            || (key.Contains(Norm, StringComparison.Ordinal) && tensors.ContainsKey(key.Replace(Norm, ".adapter_down.0.", StringComparison.Ordinal)));
    }
}
