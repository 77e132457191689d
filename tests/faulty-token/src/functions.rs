//! The functions of PKCS#11 that can be told apart in a control file.

use serde::{Deserialize, Serialize};

macro_rules! functions {
    ($($name:ident),* $(,)?) => {
        /// A function of PKCS#11 that the module looks at on its way. All others are forwarded unseen.
        #[allow(non_camel_case_types, reason = "the standard's own names, in files and messages too")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "PKCS#11 v2.40 section 5 documents them")]
        pub enum Function { $($name),* }

        impl Function {
            /// All of them, in the order of their places in the page of counts.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in the standard.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

functions!(
    C_Initialize,
    C_Finalize,
    C_GetInfo,
    C_GetSlotList,
    C_GetSlotInfo,
    C_GetTokenInfo,
    C_GetMechanismList,
    C_GetMechanismInfo,
    C_OpenSession,
    C_CloseSession,
    C_CloseAllSessions,
    C_GetSessionInfo,
    C_Login,
    C_Logout,
    C_FindObjectsInit,
    C_FindObjects,
    C_FindObjectsFinal,
    C_GetAttributeValue,
    C_CreateObject,
    C_DestroyObject,
    C_GenerateKeyPair,
    C_SignInit,
    C_Sign,
    C_SignUpdate,
    C_SignFinal,
);

impl Function {
    /// Whether a fault without a list of functions means this one too. Not those that a caller mends a
    /// module with.
    #[must_use]
    pub const fn is_ordinary(self) -> bool {
        !matches!(self, Self::C_Initialize | Self::C_Finalize)
    }
}
